"""What a PromQL query names: its metrics, and the labels it picks or groups by. Not a parser of all of PromQL: names are what
is left once strings, numbers, durations, functions and keywords are gone.
"""

import re
from collections.abc import Iterator

STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
RANGE = re.compile(r"\[[^\]]*\]")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)\s*\{([^}]*)\}")
MATCHER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*(?:=~|!~|!=|=)")
NAME = re.compile(r"(?<![\w.$])[A-Za-z_:][A-Za-z0-9_:]*(?!\s*\()\b(?!\s*\()")
# Operators that are words; functions are told by their bracket.
WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "sum", "max", "min", "avg", "count"}
# What Prometheus adds to every series it scrapes.
ADDED = {"instance", "job"}


def metrics(query: str) -> set[str]:
    """The names of the metrics in `query`."""
    plain = re.sub(r"\{[^}]*\}", "", GROUPING.sub("", RANGE.sub("", STRING.sub("", query))))
    return {name for name in NAME.findall(plain) if name not in WORDS}


def picked(query: str) -> Iterator[tuple[str, str]]:
    """The labels it picks series by, each with its metric."""
    for name, matchers in SELECTOR.findall(STRING.sub('""', query)):
        yield from ((name, label) for label in MATCHER.findall(matchers) if label not in ADDED)


def grouped(query: str) -> set[str]:
    """The labels it groups by."""
    return {
        label.strip()
        for labels in GROUPING.findall(STRING.sub('""', query))
        for label in labels.split(",")
        if label.strip() and label.strip() not in ADDED
    }
