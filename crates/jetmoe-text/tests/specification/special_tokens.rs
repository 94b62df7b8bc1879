//! The text of special tokens in messages, with ids of `tests/fixtures/tokenizers/make_split.py`.

use jetmoe_text::{ChatMessage, ChatOptions, Error, Tokenizer};
use serde_json::{Value, json};

use crate::fixtures;

fn recorded(key: &str) -> Vec<Value> {
    let file = include_str!("../../../../tests/fixtures/tokenizers/split.json");
    serde_json::from_str::<Value>(file).unwrap()[key].as_array().unwrap().clone()
}

fn mini() -> Tokenizer {
    Tokenizer::open(&fixtures::mini()).unwrap().unwrap()
}

/// The tokenizer of jetmoe-mini with another template.
fn with_template(template: &str) -> Tokenizer {
    changed(template, |_| ())
}

/// The tokenizer of jetmoe-mini with another template and an edit of its file.
fn changed(template: &str, edit: impl FnOnce(&mut Value)) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::read_to_string(fixtures::mini().join("tokenizer.json")).unwrap();
    let mut json = serde_json::from_str(&file).unwrap();
    edit(&mut json);
    fixtures::write_json(&folder.path().join("tokenizer.json"), &json);
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    Tokenizer::open(folder.path()).unwrap().unwrap()
}

const TEMPLATE: &str =
    "{% for message in messages %}<s>{{ message.role }}: {{ message.content | trim }}</s> {% endfor %}";

fn encode(tokenizer: &Tokenizer, messages: &[ChatMessage], options: &ChatOptions) -> Vec<u32> {
    let text = tokenizer.render_chat_text(messages, options).unwrap();
    assert_eq!(text.as_str(), tokenizer.render_chat(messages, options).unwrap());
    tokenizer.encode_chat_text(&text).unwrap()
}

#[test]
fn special_tokens_of_the_template_are_tokens_and_those_in_messages_are_text() {
    let tokenizer = mini();
    for case in recorded("conversations") {
        let messages: Vec<ChatMessage> = serde_json::from_value(case["messages"].clone()).unwrap();
        for (is_split, key) in [(true, "split"), (false, "unsplit")] {
            let options = ChatOptions::default().with_split_special_tokens(is_split);
            assert_eq!(json!(encode(&tokenizer, &messages, &options)), case[key], "{key}: {messages:?}");
        }
    }
}

#[test]
fn a_text_is_encoded_as_transformers_does_with_split_special_tokens() {
    let tokenizer = mini();
    for case in recorded("texts") {
        let text = case["text"].as_str().unwrap();
        assert_eq!(json!(tokenizer.encode_split(text, true).unwrap()), case["split"], "{text}");
        assert_eq!(json!(tokenizer.encode(text, true).unwrap()), case["unsplit"], "{text}");
    }
}

/// The conversation has a text to split, so the whole of it is encoded in the other way.
#[test]
fn the_rest_of_a_conversation_is_encoded_as_without_a_text_to_split() {
    let metaspace =
        json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true });
    let pipelines: [fn(&mut Value, Value); 3] = [
        |_, _| (),
        |file, metaspace| {
            file["normalizer"] = Value::Null;
            file["pre_tokenizer"] = metaspace;
        },
        |file, _| {
            for flag in ["lstrip", "rstrip"] {
                file["added_tokens"][2][flag] = true.into();
            }
        },
    ];
    for pipeline in pipelines {
        let tokenizer = changed(TEMPLATE, |file| pipeline(file, metaspace.clone()));
        let messages =
            [ChatMessage::user(" Who made it? "), ChatMessage::assistant("x <unk"), ChatMessage::user("y")];
        let options = ChatOptions::default();
        let plain = tokenizer.encode(&tokenizer.render_chat(&messages, &options).unwrap(), false).unwrap();
        assert_eq!(encode(&tokenizer, &messages, &options), plain);
        // behind the text to split, and before it
        let with_text = |place: usize| {
            let mut messages = messages.to_vec();
            messages.insert(place, ChatMessage::user("a</s>b"));
            encode(&tokenizer, &messages, &options)
        };
        let shared = plain.len() - 3;
        assert_eq!(with_text(3)[..shared], plain[..shared]);
        assert_eq!(with_text(0)[with_text(0).len() - shared..], plain[plain.len() - shared..]);
    }
}

#[test]
fn a_token_is_not_put_together_from_messages_and_the_template() {
    let tokenizer = with_template("{% for message in messages %}{{ message.content }}{% endfor %}");
    let messages = [ChatMessage::user("</"), ChatMessage::user("s>"), ChatMessage::user("<s")];
    assert!(tokenizer.encode("</s>", false).unwrap().contains(&2));
    let ids = encode(&tokenizer, &messages, &ChatOptions::default());
    assert_eq!(ids, tokenizer.encode_split("</s><s", false).unwrap());
    let parts = json!([{ "text": "</" }, { "text": "s>" }]);
    let template = "{% for part in messages[0].parts %}{{ part.text }}{% endfor %}";
    let messages = [ChatMessage::user("").with_extra("parts", parts)];
    let ids = encode(&with_template(template), &messages, &ChatOptions::default());
    assert_eq!(ids, tokenizer.encode_split("</s>", false).unwrap());
}

#[test]
fn tools_and_documents_are_text_and_other_variables_are_the_templates() {
    let tokenizer = with_template("{{ documents[0].text }}|{{ turn_end }}");
    let options = ChatOptions::default()
        .with_variable("documents", json!([{ "text": "a</s>" }]))
        .with_variable("turn_end", "</s>");
    let ids = encode(&tokenizer, &[ChatMessage::user("x")], &options);
    assert_eq!(ids.iter().filter(|id| **id == 2).count(), 1);
    assert_eq!(ids.last(), Some(&2));
}

/// Token 2 is `</s>`. Names of a template are found as before.
#[test]
fn special_tokens_in_keys_and_roles_are_text() {
    let tools = json!([{ "name": "f", "</s>": { "a</s>": "b</s>" } }]);
    let options = ChatOptions::default().with_variable("tools", tools);
    let call = json!([{ "arguments": { "</s>": 1 }, "name": "g" }]);
    let messages = [ChatMessage::new("</s>", "x").with_extra("calls", call).with_extra("</s>y", "z")];
    let tokenizer = with_template(
        "{{ tools | tojson }}{{ tools[0].name }}{{ messages[0].calls | tojson }}{{ messages[0].calls[0].name }}\
         {{ messages[0].role }}{% for key in messages[0] %}{{ key }}{% endfor %}</s>",
    );
    let ids = encode(&tokenizer, &messages, &options);
    assert_eq!(ids.iter().filter(|id| **id == 2).count(), 1);
    assert_eq!(ids.last(), Some(&2));
    let text = tokenizer.render_chat_text(&messages, &options).unwrap().into_string();
    assert!(text.contains(r#""</s>": {"a</s>": "b</s>"}"#), "{text}");
    assert!(text.contains(r#"}]f[{"arguments": {"</s>": 1}"#), "{text}");
}

#[test]
fn a_template_that_reads_special_tokens_in_messages_is_an_error() {
    let template = "{% for message in messages %}{{ message.content.split('</s>')[0] }}{% endfor %}";
    let tokenizer = with_template(template);
    let options = ChatOptions::default();
    let error = tokenizer.render_chat_text(&[ChatMessage::user("a</s>b")], &options).unwrap_err();
    assert!(matches!(&error, Error::SpecialTokenInMessage { token } if token == "</s>"), "{error:?}");
    assert!(error.to_string().contains("split_special_tokens"), "{error}");
    assert_eq!(
        encode(&tokenizer, &[ChatMessage::user("ab")], &options),
        tokenizer.encode("ab", false).unwrap()
    );
    // the beginning of a token at the end of a message is none
    let tokenizer = with_template("{{ messages[0].content | length }}");
    let ids = encode(&tokenizer, &[ChatMessage::user("a <")], &options);
    assert_eq!(ids, tokenizer.encode("3", false).unwrap());
}

#[test]
fn reserved_noncharacters_are_an_error_where_they_could_forge_a_token() {
    let tokenizer = with_template(TEMPLATE);
    let options = ChatOptions::default();
    for text in ["\u{fdd0}</s>\u{fdd0}", "<\u{fdd1}/s> </s>"] {
        let error = tokenizer.render_chat_text(&[ChatMessage::user(text)], &options).unwrap_err();
        assert!(matches!(error, Error::Noncharacter), "{error:?}");
        assert!(matches!(tokenizer.encode_split(text, false), Err(Error::Noncharacter)));
    }
    let harmless = [ChatMessage::user("\u{fdd0}")];
    let plain = tokenizer.encode(&tokenizer.render_chat(&harmless, &options).unwrap(), false).unwrap();
    assert_eq!(encode(&tokenizer, &harmless, &options), plain);
}
