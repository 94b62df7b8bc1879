use std::collections::BTreeMap;

use jetmoe_text::{ChatMessage, ChatTemplate, Tokenizer};
use serde_json::json;

use crate::fixtures;

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage::new(role, content)
}

fn render(template: &str, content: &str) -> Result<String, String> {
    ChatTemplate::new(template, BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]))
        .and_then(|template| template.render(&[message("user", content)], true))
        .map_err(|error| error.to_string())
}

/// The template of a folder with the trained model's tokenizer and this `tokenizer_config.json`.
fn template_of(tokenizer_config: &serde_json::Value) -> Option<ChatTemplate> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures::mini().join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    fixtures::write_json(&folder.path().join("tokenizer_config.json"), tokenizer_config);
    Tokenizer::open(folder.path()).unwrap().unwrap().chat_template().cloned()
}

#[test]
fn a_conversation_renders_as_transformers_renders_it() {
    let expected = fixtures::expected();
    let messages: Vec<ChatMessage> =
        serde_json::from_value(expected["chat_template"]["messages"].clone()).unwrap();
    let tokenizer = Tokenizer::open(&fixtures::mini()).unwrap().unwrap();
    let template = tokenizer.chat_template().unwrap();
    assert_eq!(
        template.render(&messages, true).unwrap(),
        expected["chat_template"]["rendered"].as_str().unwrap()
    );
    assert_eq!(template.render(&messages, false).unwrap(), "<|user|>\nWho made the heaven?</s>\n");
}

#[test]
fn tokenizer_config_holds_one_template_or_several() {
    let rendered = |config| {
        template_of(&config).map(|template| template.render(&[message("user", "hi")], false).unwrap())
    };
    let one = json!({ "eos_token": "</s>", "chat_template": "{{ messages[0].content }}{{ eos_token }}" });
    assert_eq!(rendered(one).as_deref(), Some("hi</s>"));
    let several = json!({
        "eos_token": { "content": "<end>", "lstrip": false },
        "chat_template": [
            { "name": "tool_use", "template": "tools" },
            { "name": "default", "template": "{{ messages[0].content }}{{ eos_token }}" },
        ],
    });
    assert_eq!(rendered(several).as_deref(), Some("hi<end>"));
    assert_eq!(rendered(json!({ "eos_token": "</s>" })), None);
    assert_eq!(rendered(json!({ "chat_template": [{ "name": "rag", "template": "x" }] })), None);
}

#[test]
fn a_file_of_its_own_comes_before_tokenizer_config() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures::mini().join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    fixtures::write_json(&folder.path().join("tokenizer_config.json"), &json!({ "chat_template": "config" }));
    std::fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap().unwrap();
    assert_eq!(tokenizer.chat_template().unwrap().render(&[], false).unwrap(), "file");
}

#[test]
fn an_error_that_the_template_raises_keeps_its_message_and_line() {
    let template =
        "{% if messages[0].role == 'user' %}\n{{ raise_exception('Roles must alternate') }}{% endif %}";
    let expected = "chat template: invalid operation: Roles must alternate (in chat_template:2)";
    assert_eq!(render(template, "hi").unwrap_err(), expected);
}

#[test]
fn a_template_that_cannot_be_parsed_or_run_is_named_with_its_line() {
    let error = render("a\n{% if %}", "").unwrap_err();
    assert!(
        error.starts_with("chat template: syntax error: ") && error.ends_with("(in chat_template:2)"),
        "{error}"
    );
    let error = render("a\n\n{{ messages | no_such_filter }}", "").unwrap_err();
    assert!(error.contains("no_such_filter") && error.ends_with("(in chat_template:3)"), "{error}");
}

#[test]
fn line_breaks_around_blocks_are_treated_as_in_transformers() {
    assert_eq!(render("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "").unwrap(), "a\nb\nc");
}

#[test]
fn strings_have_the_methods_that_python_gives_them() {
    let template = "{{ messages[0].content.strip().upper() }} {{ messages[0]['content'].split(',')[0] }} \
                    {{ messages[0].content.startswith(' a') }}";
    assert_eq!(render(template, " a,b ").unwrap(), "A,B  a True");
}

#[test]
fn json_is_written_as_python_writes_it() {
    assert_eq!(
        render("{{ messages | tojson }}", "<é> & 'q'\n").unwrap(),
        r#"[{"role": "user", "content": "<é> & 'q'\n"}]"#
    );
    assert_eq!(render("{{ [1, 2] | tojson(indent=2) }}", "").unwrap(), "[\n  1,\n  2\n]");
    assert!(render("{{ [1] | tojson(nonsense=2) }}", "").unwrap_err().contains("nonsense"));
}

#[test]
fn tools_and_documents_are_none() {
    let template = "{{ tools is none }} {{ documents is none }} {% if tools is not none %}tools{% endif %}";
    assert_eq!(render(template, "").unwrap(), "True True ");
}

#[test]
fn loop_controls_and_generation_blocks_are_understood() {
    let template = "{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration -%}{% break %}{% endfor %}";
    assert_eq!(render(template, "hi").unwrap(), "hi");
    assert_eq!(
        render("{% generation %}{{ messages[0].content }}{% endgeneration %} generation", "hi").unwrap(),
        "hi generation"
    );
    assert_eq!(render("{{ '{%' }}", "").unwrap(), "{%");
}

#[test]
fn content_is_not_escaped() {
    assert_eq!(render("{{ messages[0].content }}", "<b> & {{ x }}").unwrap(), "<b> & {{ x }}");
}
