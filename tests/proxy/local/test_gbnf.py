"""GBNF in Lark's notation: rules that only spell text become terminals."""

import pytest
from quiver.proxy.local.gbnf import BadGrammar, is_gbnf, to_lark


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('root ::= "yes" | "no"', ["start: T_ROOT", 'T_ROOT: "yes" | "no"']),
        ("root ::= [a-z_\\n^/] [^\\x41-]+", [
            "start: T_ROOT",
            r"T_ROOT: /[a-z\x{5f}\x{a}\x{5e}\x{2f}]/ /[^A\x{2d}]/ +",
        ]),
        ('# note\nroot ::= item{1,3} # end\nitem ::=\n  "a\\"\\n" | (\n  .)?', [
            "start: T_ROOT", "T_ROOT: T_ITEM {1,3}", 'T_ITEM: "a\\"\\n" | ( /(?s:.)/ ) ?',
        ]),
        ('root ::= "(" root-2 ")" | n\nroot-2 ::= root\nn ::= [0-9]', [
            "start: r_root", 'r_root: "(" r_root_2d_2 ")" | T_N', "r_root_2d_2: r_root", "T_N: /[0-9]/",
        ]),
        ('root ::= A a\nA ::= "x"\na ::= "y"', ["start: T_ROOT", "T_ROOT: T_A_ T_A", 'T_A_: "x"', 'T_A: "y"']),
    ],
)  # fmt: skip
def test_rules_are_rewritten(text: str, expected: list[str]) -> None:
    assert is_gbnf(text)
    assert to_lark(text) == "\n".join(expected)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('start ::= "a"', "`root`"),
        ("root ::= nothing", "line 1: there is no rule `nothing`"),
        ('root ::= "a"\n\nroot ::= "b"', "line 3: `root` is defined twice"),
        ('root ::= "a', 'line 1: `"a`'),
        ("root ::= []", "line 1: `[]`"),
        ('"a" root ::= "b"', "before the first rule"),
        ('root ::= "a" ::= "b"', "must follow a name"),
    ],
)
def test_bad_rules_are_named(text: str, part: str) -> None:
    with pytest.raises(BadGrammar) as caught:
        to_lark(text)
    assert part in str(caught.value)
