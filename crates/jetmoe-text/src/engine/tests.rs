use proptest::prelude::*;
use serde_json::json;

use super::budget::{LIMITS, Limit, Limits};
use super::*;
use crate::chat_template::environment;

/// Limits that a test reaches at once.
const SMALL: Limits = Limits {
    steps: Limit { base: 20_000, growth: 0 },
    memory: Limit { base: 100_000, growth: 0 },
    work: Limit { base: 1_000_000, growth: 0 },
};

fn render_with(source: &str, limits: &Limits) -> Result<String, Failure> {
    let tools = json!([{ "name": "a", "of": [1, { "b": [] }] }]);
    let variables = BTreeMap::from([
        ("tools", tools),
        ("text", json!("some text\nand more")),
        ("messages", json!([{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "ho" }])),
    ]);
    render(source, environment, variables, limits)
}

fn rendered(source: &str) -> String {
    render_with(source, &SMALL).unwrap()
}

/// The error of a limit.
fn limit(source: &str) -> String {
    match render_with(source, &SMALL) {
        Err(Failure::Limit(error)) => error.to_string(),
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn a_template_that_does_not_end_is_stopped() {
    let error = limit("{% set l = range(200) %}{% for a in l %}{% for b in l %}{% endfor %}{% endfor %}");
    assert!(error.contains("more than 20000 steps"), "{error}");
}

#[test]
fn what_grows_step_by_step_ends_at_the_limit_of_memory() {
    let doubled = |step: &str| {
        format!(
            "{{% set ns = namespace(x='ab', l=[1], d={{}}) %}}{{% for i in range(60) %}}{{% set {step} %}}{{% endfor %}}"
        )
    };
    for step in [
        "ns.x = ns.x ~ ns.x",
        "ns.x = ns.x + ns.x",
        "ns.x = ns.x * 2",
        "ns.x = ns.x | replace('a', 'aab')",
        "ns.x = ns.x.replace('a', 'aab')",
        "ns.x = [ns.x, ns.x] | join('-')",
        "ns.x = '-'.join([ns.x, ns.x])",
        "ns.x = '%s%s' | format(ns.x, ns.x)",
        "ns.x = '{}{}'.format(ns.x, ns.x)",
        "ns.x = [ns.x, ns.x] | tojson",
        "ns.x = [ns.x, ns.x] | string",
        "ns.x = [ns.x, ns.x] | pprint",
        "ns.x = (ns.x ~ '\nb') | indent(1000)",
        "ns.l = ns.l + ns.l",
        "ns.l = ns.l * 2",
        "ns.d = [ns.d, ns.d] | tojson",
    ] {
        let error = limit(&doubled(step));
        assert!(error.contains("at most 100000"), "{step}: {error}");
    }
    let macros = "{% for i in range(60) %}{% macro f() %}{{ i }}{% endmacro %}{% endfor %}";
    assert!(limit(macros).contains("at most 100000"));
    let lists = "{% set l = range(1000) %}{% macro f() %}{% endmacro %}{{ f(*l, *l, *l, *l) }}";
    assert!(limit(lists).contains("at most 100000"));
    let captured = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}\
                    {% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}";
    assert!(limit(captured).contains("at most 100000"));
    let shared =
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    for end in
        ["{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x ~ '' }}", "{{ ns.x == [ns.x] }}", "{{ 2 in ns.x }}"]
    {
        limit(&format!("{shared}{end}"));
    }
}

#[test]
fn one_call_cannot_make_more_than_the_limit() {
    for call in [
        "text * 100000",
        "[text] * 100000",
        "[1] | batch(100000, 0)",
        "[1] | slice(100000)",
        "text | indent(100000)",
        "text | replace('', 'x' * 9000)",
        "range(100) | join('x' * 9000)",
        "tools | tojson(indent='x' * 90000)",
        "range(50000) | list",
    ] {
        let error = limit(&format!("{{% set y = {call} %}}"));
        assert!(error.contains("at most 100000"), "{call}: {error}");
    }
    for call in ["'%100000d' | format(1)", "'{:100000}'.format(1)", "'%*d' | format(100000, 1)"] {
        match render_with(&format!("{{{{ {call} }}}}"), &SMALL) {
            Err(Failure::Rendering(error)) => assert!(error.to_string().contains("at most 10000"), "{error}"),
            other => panic!("{call}: {other:?}"),
        }
    }
}

#[test]
fn what_is_read_again_and_again_ends_at_the_limit_of_work() {
    let limits = Limits { steps: LIMITS.steps, memory: LIMITS.memory, ..SMALL };
    for read in
        ["x == y", "x in y", "x | length", "x is upper", "x[-1]", "x.count('a')", "1 < 2 < x | length"]
    {
        let source = format!(
            "{{% set x = 'a' * 5000 %}}{{% set y = x.upper().lower() %}}\
             {{% for i in range(300) %}}{{% if {read} %}}{{% endif %}}{{% endfor %}}"
        );
        match render_with(&source, &limits) {
            Err(Failure::Limit(error)) => {
                assert!(error.to_string().contains("at most 1000000"), "{read}: {error}");
            }
            other => panic!("{read}: {other:?}"),
        }
    }
}

/// The items together are beyond the limit, and each is within it.
#[test]
fn filters_of_each_item_are_charged_one_by_one() {
    let error = limit("{% set y = range(20) | map('center', 9000) | map('length') %}");
    assert!(error.contains("at most 100000"), "{error}");
    let limits = Limits { steps: LIMITS.steps, memory: LIMITS.memory, ..SMALL };
    for call in [
        "map('string')",
        "map(attribute='a')",
        "map(attribute=text, default=1)",
        "select('odd')",
        "reject('none')",
        "selectattr('a')",
        "rejectattr('a', 'defined')",
    ] {
        let source = format!("{{% set y = range(20000) | {call} %}}");
        match render_with(&source, &limits) {
            Err(Failure::Limit(error)) => {
                assert!(error.to_string().contains("at most 1000000"), "{call}: {error}");
            }
            other => panic!("{call}: {other:?}"),
        }
    }
    for (call, says) in [
        ("[1] | map(*(['map'] * 65))", "map: 65 arguments, at most 64"),
        ("[1] | map('~filter', 'upper')", "filter ~filter is unknown"),
        ("[1] | map('nothing')", "filter nothing is unknown"),
        ("[1] | select('nothing')", "test nothing is unknown"),
        ("[1] | map", "map: the name of a filter is missing"),
        ("[1] | map('upper', attribute='a')", "too many arguments"),
    ] {
        match render_with(&format!("{{{{ {call} }}}}"), &SMALL) {
            Err(Failure::Rendering(error)) => assert!(error.to_string().contains(says), "{call}: {error}"),
            other => panic!("{call}: {other:?}"),
        }
    }
}

/// As Jinja 3.1 has them.
#[test]
fn filters_of_each_item_have_the_results_of_jinja() {
    for (expression, expected) in [
        ("messages | map(attribute='role') | list", "['user', 'assistant']"),
        ("messages | map(attribute='name', default='-') | list", "['-', '-']"),
        ("tools | map(attribute='of.1.b') | list", "[[]]"),
        ("[[1, 2], [3]] | map(attribute=0) | list", "[1, 3]"),
        ("['a', 'b'] | map('upper') | join", "AB"),
        ("['ab', 'b'] | map('replace', 'b', 'c') | list", "['ac', 'c']"),
        ("[{'b': 1, 'a': 2}] | map('tojson', sort_keys=true) | join", r#"{"a": 2, "b": 1}"#),
        ("[['a'], ['b']] | map('map', 'upper') | map('list') | list", "[['A'], ['B']]"),
        ("range(5) | select('odd') | list", "[1, 3]"),
        ("range(5) | reject('odd') | list", "[0, 2, 4]"),
        ("[0, 1, ''] | select | list", "[1]"),
        ("[0, 1, ''] | reject | list", "[0, '']"),
        ("messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list", "['hi']"),
        ("messages | rejectattr('role', 'in', ['user']) | map(attribute='content') | list", "['ho']"),
        ("messages | selectattr('name') | list", "[]"),
        ("messages | selectattr('name', 'undefined') | list | length", "2"),
        ("missing | map('upper') | list", "[]"),
    ] {
        assert_eq!(rendered(&format!("{{{{ {expression} }}}}")), expected, "{expression}");
    }
}

#[test]
fn calls_without_an_end_are_an_error() {
    for source in [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(l) %}{% for i in l %}{{ f(l) }}{% endfor %}{% endmacro %}{{ f([1]) }}",
        "{% set l = [1] %}{% for i in l recursive %}{{ loop(l) }}{% endfor %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
    ] {
        match render_with(source, &LIMITS) {
            Err(Failure::Rendering(error)) => {
                let causes = format!("{error:?}");
                assert!(causes.contains("recursion limit"), "{source}: {causes}");
            }
            other => panic!("{source}: {other:?}"),
        }
    }
}

#[test]
fn constant_expressions_are_not_computed_beyond_their_limit() {
    for expression in ["'a' * 1000000000", "('a' * 1000) * 100000", "[1] * 1000000000", "'a' * (9 ** 9)"] {
        match check(&format!("{{{{ {expression} }}}}")) {
            Err(Failure::Template(error)) => {
                assert!(error.to_string().contains("constant expressions"), "{error}");
            }
            other => panic!("{expression}: {other:?}"),
        }
    }
    assert_eq!(rendered("{{ '=' * 20 }}{{ 2 * 3 + 1 }}"), "====================7");
}

/// With a chain that is as long as the guard permits, and longer than the stack of a test's thread takes.
#[test]
fn what_the_guard_permits_does_not_overflow_the_stack() {
    let tag = |start: &str, link: &str, end: &str, links: usize| {
        format!("{{{{ {start}{}{end} }}}}", link.repeat(links))
    };
    let elif = "{% elif true %}".repeat(1_000);
    for source in [
        tag("", "not ", "a", 4_000),
        tag("", "- ", "a", 4_000),
        tag("a", ".b", "", 2_000),
        tag("a", " | d", "", 2_000),
        tag("a", " ~ a", "", 2_000),
        tag("a", " and a", "", 2_000),
        tag("a", " is none", "", 2_000),
        tag("a", "[0]", "", 1_300),
        tag("a", "()", "", 1_300),
        tag("", "a if a else ", "a", 1_000),
        format!("{{% if false %}}{elif}{{% endif %}}"),
        format!("{{% set {}a{} = a %}}", "(".repeat(2_000), ")".repeat(2_000)),
        format!("{}{}", "{% if a %}".repeat(149), "{% endif %}".repeat(149)),
        format!(
            "{}{{% if false %}}{elif}{{% endif %}}{}",
            "{% for x in a %}".repeat(140),
            "{% endfor %}".repeat(140)
        ),
        format!("{{{{ {}a{} }}}}", "(".repeat(70), ")".repeat(70)),
    ] {
        match check(&source) {
            Ok(()) | Err(Failure::Template(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn values_are_limited_in_depth_whatever_nests_them() {
    for step in [
        "[ns.x]",
        "{'a': ns.x}",
        "[ns.x] | batch(1)",
        "dict(a=ns.x)",
        "[ns.x] | map('list') | list",
        "{'a': ns.x}.items()",
    ] {
        let source = format!(
            "{{% set ns = namespace(x=[]) %}}{{% for i in range(300) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
        );
        match render_with(&source, &LIMITS) {
            Err(Failure::Rendering(error)) => {
                assert!(error.to_string().contains("256 levels"), "{step}: {error}")
            }
            other => assert!(step.contains("map"), "{step}: {other:?}"),
        }
    }
    for nested in ["ns.x = ns", "ns.x = [ns]", "ns.x = {'a': namespace()}"] {
        match render_with(&format!("{{% set ns = namespace() %}}{{% set {nested} %}}"), &LIMITS) {
            Err(Failure::Rendering(error)) => {
                assert!(error.to_string().contains("a namespace cannot be in"), "{error}")
            }
            other => panic!("{nested}: {other:?}"),
        }
    }
}

#[test]
fn operators_and_calls_have_the_results_of_the_engine() {
    let source = "{{ 1 + 2 }} {{ 1.5 + 2 }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ 3 * 4 }} {{ 'ab' * 2 }} {{ [1] * 2 }} \
                  {{ 1 ~ 'a' ~ none }} {{ 3 in [1, 2] }} {{ 'a' not in 'bc' }} {{ 1 < 2 < 3 }} {{ [1, 2] == [1, 2] }} \
                  {{ [1, 2, 3][::-1] }} {{ 'abc'[1:] }} {{ [3, 1] | sort | join(',') }} {{ {'a': 1}.get('a') }} \
                  {{ range(3) | map('string') | join }} {{ [1, 2, 3][-1] }} {{ {'b': 1, 'a': 2} }}";
    assert_eq!(
        rendered(source),
        "3 3.5 ab [1, 2] 12 abab [1, 1] 1aNone False True True True [3, 2, 1] bc 1,3 1 012 3 {'b': 1, 'a': 2}"
    );
    let control = "{% macro f(x, y=2) %}{{ x }}{{ y }}{{ caller() if caller }}{% endmacro %}{{ f(1) }}{{ f(*[3, 4]) }}\
                   {% call f(5) %}!{% endcall %}{% for i in [[1, [2]]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}\
                   {% for i in range(5) if i is odd %}{{ i }}{% else %}-{% endfor %}{% set a, b = 1, 2 %}{{ a }}{{ b }}\
                   {% filter upper %}x{% endfilter %}{% block z %}z{% endblock %}{{ [1, 2] | map(attribute='a') | list | length }}";
    assert_eq!(rendered(control), "123452!12131 2XZ".replace("131 2XZ", "1312Xz2"));
}

#[test]
fn a_panic_of_the_engine_is_an_error_with_its_message() {
    match on_large_stack::<()>(|| panic!("in the engine")) {
        Err(Failure::Engine(problem)) => assert_eq!(problem, "in the engine"),
        other => panic!("{other:?}"),
    }
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{# ",
        " #}",
        "-",
        "~",
        "*",
        "+",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "'",
        "\"",
        ".",
        ",",
        ":",
        "|",
        "=",
        "<",
        "==",
        " in ",
        " not ",
        " is ",
        " if ",
        " else ",
        "text",
        "tools",
        "messages",
        "ns",
        "ns.x",
        "loop",
        "loop.index",
        "range(",
        "namespace(x=text)",
        "1",
        "99999",
        "0.5",
        "join",
        "replace",
        "tojson",
        "map",
        "{% for i in messages %}",
        "{% endfor %}",
        "{% if text %}",
        "{% elif x %}",
        "{% endif %}",
        "{% set ns = namespace(x=text) %}",
        "{% set ns.x = ns.x ~ ns.x %}",
        "{% set ns.x = [ns.x, ns.x] %}",
        "{% macro f(a) %}",
        "{% endmacro %}",
        "{{ f(f) }}",
        "{{ f(ns.x) }}",
        "{{ ns.x | tojson }}",
        "{{ ns.x }}",
        "{% set y %}",
        "{% endset %}",
        "{{ text * 99 }}",
        "{% for i in range(99) %}",
        "{{ ns.x == ns.x }}",
        "{{ tools | map('string') | join(text) }}",
        "{% generation %}",
        "{% raw %}",
        "{% endraw %}",
        " text ",
        "\n",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No template panics, or takes more than the limits; the text is part of the memory.
    #[test]
    fn any_template_ends_in_a_text_or_an_error(source in pieces()) {
        match render_with(&source, &SMALL) {
            Ok(text) => prop_assert!(text.len() <= 100_000),
            Err(Failure::Template(_) | Failure::Rendering(_) | Failure::Limit(_)) => {}
            Err(Failure::Engine(problem)) => prop_assert!(false, "{}", problem),
        }
    }
}
