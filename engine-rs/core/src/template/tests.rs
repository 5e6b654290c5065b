//! Rendering: the variables, the additions to Jinja, and the bounds.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::*;

fn render(source: &str, messages: Value) -> Result<String> {
    render_with(source, messages, json!({}))
}

fn render_with(source: &str, messages: Value, extra: Value) -> Result<String> {
    let clock = || UNIX_EPOCH + Duration::from_secs(951_782_400);
    let template = ChatTemplate::compile([(MAIN, source)], "<s>".into(), "</s>".into(), clock)?;
    let extra: Map<String, Value> = serde_json::from_value(extra).unwrap();
    template.render(&messages, &extra, true)
}

const CHATML: &str = "{% for message in messages %}
<|im_start|>{{ message.role }}
{{ message['content'] }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}";

#[test]
fn renders_a_conversation() {
    let messages = json!([{"role": "user", "content": "<b>&'\"Hi"}]);
    let expected = "<|im_start|>user\n<b>&'\"Hi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(render(CHATML, messages).unwrap(), expected);
}

#[test]
fn each_addition_works() {
    let cases = [
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
        ("{{ tools is none }} {{ tools is defined }} {{ nothing is defined }}", "True True False"),
        ("{{ strftime_now('%d %b %Y') }}", "29 Feb 2000"),
        ("{{ messages[::-1][0].content }}", "last"),
        ("{{ messages[-1]['content'].upper().strip() }}", "LAST"),
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
            "last",
        ),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{{ {'b': 1, 'a': [true, none, 1.5, '<é\n>']} | tojson }}", r#"{"b": 1, "a": [true, null, 1.5, "<é\n>"]}"#),
        ("{{ {'b': [1], 'a': {}} | tojson(indent=2) }}", "{\n  \"b\": [\n    1\n  ],\n  \"a\": {}\n}"),
        ("{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true) }}", r#"{"a": "\u00e9", "b": 1}"#),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ 'a=b=c'.partition('=') }}", "('a', '=', 'b=c')"),
        ("{{ 'a=b=c'.rpartition('=')[0] }}", "a=b"),
        ("{{ 'abc'.partition('=') }}", "('abc', '', '')"),
        ("{{ 'a=b=c'.rsplit('=', 1)[0] }}", "a=b"),
        ("{{ 'a=b=c'.rsplit('=') }}", "['a', 'b', 'c']"),
        ("{{ 'abc'.removeprefix('a').removesuffix('c') }}", "b"),
        ("{{ none is iterable }} {{ 'a' is sequence }}", "False True"),
        ("{{ nothing }}{% for x in nothing %}x{% endfor %}", ""),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
    ];
    let messages = json!([{"role": "user", "content": "first"}, {"role": "user", "content": " last"}]);
    for (source, expected) in cases {
        let found = render(source, messages.clone()).unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(found.trim_start_matches(' '), expected, "{source}");
    }
}

#[test]
fn extra_variables_come_first() {
    assert_eq!(render_with("{{ thinking }}", json!([]), json!({"thinking": false})).unwrap(), "False");
    assert_eq!(render_with("{{ bos_token }}", json!([]), json!({"bos_token": "B"})).unwrap(), "B");
    let tools = json!({"tools": [{"type": "function", "name": "f"}]});
    let expected = r#"[{"type": "function", "name": "f"}]"#;
    assert_eq!(render_with("{{ tools | tojson }}", json!([]), tools).unwrap(), expected);
}

#[test]
fn errors_say_what_and_where() {
    let cases = [
        ("{{ raise_exception('Roles must alternate') }}", "chat template: Roles must alternate"),
        ("a\nb {{ nothing.x }}", "line 2: `b {{ nothing.x }}`"),
        ("{% if %}", "line 1"),
        ("{{ messages | no_such }}", "no_such"),
        ("{{ nothing | tojson }}", "undefined is no JSON"),
        ("{{ strftime_now('%Q') }}", "`%Q`"),
    ];
    for (source, expected) in cases {
        let error = render(source, json!([])).expect_err(source);
        assert_eq!(error.code(), "chat_template");
        assert!(error.to_string().contains(expected), "{source}: {error}");
    }
}

#[test]
fn a_panic_inside_is_an_error() {
    let error = render("{% for message in messages[::-1] %}{% endfor %}", json!([]));
    assert_eq!(error.expect_err("a known panic").code(), "chat_template");
}

#[test]
fn endless_templates_end() {
    let nested = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let recursive = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
    let verbose = "{% set a = 'x' * 1000000 %}{% for b in range(1000) %}{{ a }}{% endfor %}";
    let deep = "{% set ns = namespace(x=[]) %}{% for a in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}";
    let long = "x".repeat(MAX_SOURCE + 1);
    for source in [nested, recursive, verbose, deep, &long] {
        assert_eq!(render(source, json!([])).expect_err(source).code(), "chat_template");
    }
}

#[test]
fn deep_values_and_sources_do_not_overflow_the_stack() {
    let deep = |set: &str, after: &str| {
        let repeat = format!("{{% for a in range(49999) %}}{set}{{% endfor %}}");
        format!("{{% set ns = namespace(x=[], y=[]) %}}{repeat}{{{{ {after} }}}}")
    };
    let sources = [
        deep("{% set ns.x = [ns.x] %}", "ns.x | string | length"),
        deep("{% set ns.x = {'a': ns.x} %}", "1"),
        deep("{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}", "ns.x == ns.y"),
        format!("{{{{ {}1 }}}}", "not ".repeat(60_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(120_000)),
    ];
    for source in sources {
        assert!(render(&source, json!([])).is_ok());
    }
}

#[test]
fn tools_have_their_own_template() {
    let sources = [(MAIN, "main"), (TOOL_USE, "tools")];
    let template = ChatTemplate::compile(sources, String::new(), String::new(), SystemTime::now).unwrap();
    for (tools, expected) in [(json!(null), "main"), (json!([]), "tools")] {
        let extra = Map::from_iter([("tools".to_owned(), tools)]);
        assert_eq!(template.render(&json!([]), &extra, true).unwrap(), expected);
    }
}
