use std::collections::BTreeMap;

use jetmoe_text::{ChatMessage, ChatOptions, ChatTemplate, Tokenizer};
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
    assert_eq!(rendered(json!({ "chat_template": null })), None);
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

/// The values of a template: a list in a list, and so on.
fn nested(levels: usize) -> String {
    format!(
        "{{% set ns = namespace(x=[]) %}}{{% for _ in range({levels} - 1) %}}{{% set ns.x = [ns.x] %}}{{% endfor %}}"
    )
}

#[test]
fn values_that_are_nested_too_deep_are_an_error() {
    for written in ["ns.x | tojson", "ns.x", "ns.x | string", "{'a': ns.x} | tojson(indent=2)"] {
        let template = |levels| format!("{}{{{{ {written} }}}}", nested(levels));
        assert!(render(&template(200), "").unwrap().contains('['), "{written}");
        let error = render(&template(257), "").unwrap_err();
        assert!(error.contains("nested deeper than 256 levels"), "{written}: {error}");
        assert!(error.ends_with("(in chat_template:1)"), "{written}: {error}");
    }
    // nothing is left out
    assert_eq!(render(&(nested(256) + "{{ ns.x }}"), "").unwrap(), "[".repeat(256) + &"]".repeat(256));
    let error = render("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns | tojson }}", "").unwrap_err();
    assert!(error.contains("a namespace cannot be in"), "{error}");
}

#[test]
fn variables_and_keys_of_messages_that_are_nested_too_deep_are_refused() {
    let value = |levels| (0..levels).fold(json!(null), |inner, _| json!([inner]));
    let template = ChatTemplate::new("{{ tools | tojson }}{{ messages | tojson }}", BTreeMap::new()).unwrap();
    let with_variable = |levels| ChatOptions::default().with_variable("tools", value(levels));
    let with_extra = |levels| message("user", "hi").with_extra("tool_calls", value(levels));
    let render = |message: ChatMessage, options: &ChatOptions| {
        template.render_with(&[message], options).map_err(|error| error.to_string())
    };
    render(with_extra(128), &with_variable(128)).unwrap();
    assert_eq!(
        render(message("user", "hi"), &with_variable(129)).unwrap_err(),
        "chat template: the value of \"tools\" is nested deeper than 128 levels\n  \
         give it as a text, or with fewer levels"
    );
    let error = render(with_extra(129), &ChatOptions::default()).unwrap_err();
    assert!(error.contains("the value of \"tool_calls\""), "{error}");
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

/// A folder with the tokenizer of the trained model and these files.
fn folder_with(files: &[(&str, serde_json::Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures::mini().join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content.as_str() {
            Some(text) => std::fs::write(path, text).unwrap(),
            None => fixtures::write_json(&path, content),
        }
    }
    folder
}

fn tokenizer_with(files: &[(&str, serde_json::Value)]) -> Tokenizer {
    open_with(files).unwrap()
}

/// The same, or the error without the path of the folder.
fn open_with(files: &[(&str, serde_json::Value)]) -> Result<Tokenizer, String> {
    let folder = folder_with(files);
    match Tokenizer::open(folder.path()) {
        Ok(tokenizer) => Ok(tokenizer.unwrap()),
        Err(error) => Err(error.to_string().replace(&format!("{}/", folder.path().display()), "")),
    }
}

#[test]
fn a_file_that_is_no_object_is_refused_by_name() {
    for name in
        ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"]
    {
        for (content, found) in [
            (json!([]), "sequence"),
            (json!(3), "integer `3`"),
            (json!(null), "null"),
            (json!(true), "boolean"),
        ] {
            let error = open_with(&[(name, content)]).unwrap_err();
            let expected = format!("{name} is not valid: invalid type: {found}");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}

/// Only a file that does not exist is no template.
#[test]
fn a_template_that_cannot_be_read_is_refused_by_its_path() {
    // a file inside makes a folder of the name of a template; text makes a file of the name of a folder
    for (file, refused) in [
        ("chat_template.jinja/inside", "chat_template.jinja"),
        ("additional_chat_templates/rag.jinja/inside", "additional_chat_templates/rag.jinja"),
        ("additional_chat_templates", "additional_chat_templates"),
        ("chat_template.json/inside", "chat_template.json"),
        ("tokenizer_config.json/inside", "tokenizer_config.json"),
    ] {
        let error = open_with(&[(file, json!("text"))]).unwrap_err();
        assert!(error.starts_with(&format!("cannot read {refused}: ")), "{error}");
    }
    assert!(open_with(&[]).is_ok());
}

#[test]
fn a_template_is_selected_by_name_and_by_tools() {
    let template =
        |name: &str| json!({ "name": name, "template": format!("{name} {{{{ messages[0].content }}}}") });
    let config = json!({ "chat_template": [template("default"), template("tool_use"), template("rag")] });
    let tokenizer = tokenizer_with(&[("tokenizer_config.json", config)]);
    let render = |options: &ChatOptions| {
        tokenizer.render_chat(&[message("user", "hi")], options).map_err(|error| error.to_string())
    };
    let options = ChatOptions::default();
    assert_eq!(render(&options).unwrap(), "default hi");
    assert_eq!(render(&options.clone().with_template("rag".to_owned())).unwrap(), "rag hi");
    assert_eq!(render(&options.clone().with_variable("tools", json!([]))).unwrap(), "tool_use hi");
    assert_eq!(render(&options.clone().with_variable("tools", json!(null))).unwrap(), "default hi");
    let error = render(&options.with_template("chat".to_owned())).unwrap_err();
    assert_eq!(
        error,
        "chat template: the model has none called \"chat\"\n  the model has: default, rag, tool_use"
    );
}

#[test]
fn a_file_with_a_template_that_cannot_be_parsed_is_named_with_the_key() {
    let broken = "a\n{% if %}";
    let several = json!([{ "name": "default", "template": "" }, { "name": "rag", "template": broken }]);
    for (file, content, place) in [
        ("chat_template.jinja", json!(broken), "chat_template.jinja"),
        ("additional_chat_templates/rag.jinja", json!(broken), "additional_chat_templates/rag.jinja"),
        ("tokenizer_config.json", json!({ "chat_template": broken }), "tokenizer_config.json: chat_template"),
        (
            "tokenizer_config.json",
            json!({ "chat_template": several }),
            "tokenizer_config.json: chat_template.rag",
        ),
        ("chat_template.json", json!({ "chat_template": broken }), "chat_template.json: chat_template"),
    ] {
        let folder = folder_with(&[(file, content)]);
        // opening only reads the templates
        let tokenizer = Tokenizer::open(folder.path()).unwrap().unwrap();
        let error = tokenizer.check_chat_templates().unwrap_err().to_string();
        let expected = format!("{} is no valid chat template: ", folder.path().join(place).display());
        assert!(error.starts_with(&expected) && error.contains("(in chat_template:2)"), "{error}");
    }
}

#[test]
fn a_template_that_takes_too_much_is_named_with_the_key_and_the_limit() {
    let template = "{{ messages[0].content * 1000000000 }}";
    let tokenizer = tokenizer_with(&[("tokenizer_config.json", json!({ "chat_template": template }))]);
    let error =
        tokenizer.render_chat(&[message("user", "hi")], &ChatOptions::default()).unwrap_err().to_string();
    assert!(
        error.contains("tokenizer_config.json: chat_template: ") && error.contains("at most "),
        "{error}"
    );
    assert!(error.ends_with("shorten the conversation, or correct the template"), "{error}");
    let large = " ".repeat((1 << 20) + 1);
    let tokenizer = tokenizer_with(&[("chat_template.jinja", json!(large))]);
    let error = tokenizer.chat_template().unwrap().render(&[], true).unwrap_err().to_string();
    assert!(
        error.contains("chat_template.jinja is no valid chat template") && error.contains("at most 1048576")
    );
}

#[test]
fn a_conversation_of_thousands_of_turns_is_rendered() {
    let tokenizer = Tokenizer::open(&fixtures::mini()).unwrap().unwrap();
    let turn =
        |index: usize| message(["user", "assistant"][index % 2], &format!("{index}: {}", "word ".repeat(40)));
    let messages: Vec<_> = (0..5_000).map(turn).collect();
    let text = tokenizer.chat_template().unwrap().render(&messages, true).unwrap();
    assert!(text.contains("4999: word") && text.len() > 1_000_000);
}

#[test]
fn several_templates_without_a_default_are_named() {
    let config =
        json!({ "chat_template": [{ "name": "b", "template": "x" }, { "name": "a", "template": "y" }] });
    let tokenizer = tokenizer_with(&[("tokenizer_config.json", config)]);
    let error =
        tokenizer.render_chat(&[message("user", "hi")], &ChatOptions::default()).unwrap_err().to_string();
    assert!(error.contains("several and none called \"default\"") && error.ends_with("has: a, b"), "{error}");
    assert_eq!(tokenizer.chat_template_names().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn templates_in_files_replace_those_of_the_configuration() {
    let tokenizer = tokenizer_with(&[
        ("tokenizer_config.json", json!({ "chat_template": [{ "name": "old", "template": "old" }] })),
        ("chat_template.jinja", json!("default")),
        ("additional_chat_templates/rag.jinja", json!("rag {{ query }}")),
        ("additional_chat_templates/notes.txt", json!("no template")),
        ("chat_template.json", json!({ "chat_template": "older" })),
    ]);
    assert_eq!(tokenizer.chat_template_names().collect::<Vec<_>>(), ["default", "rag"]);
    let options = ChatOptions::default().with_template("rag".to_owned()).with_variable("query", "who?");
    assert_eq!(tokenizer.render_chat(&[message("user", "hi")], &options).unwrap(), "rag who?");
    let tokenizer = tokenizer_with(&[("chat_template.json", json!({ "chat_template": "older" }))]);
    assert_eq!(tokenizer.render_chat(&[message("user", "hi")], &ChatOptions::default()).unwrap(), "older");
}

#[test]
fn special_tokens_are_read_wherever_transformers_reads_them() {
    let template = json!("{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ image_token }}");
    let rendered = |files: &[(&str, serde_json::Value)]| {
        let files: Vec<_> =
            files.iter().cloned().chain([("chat_template.jinja", template.clone())]).collect();
        tokenizer_with(&files).render_chat(&[message("user", "hi")], &ChatOptions::default()).unwrap()
    };
    let content =
        |text: &str| json!({ "content": text, "lstrip": false, "normalized": false, "single_word": false });
    let map = json!({ "bos_token": content("<s>"), "eos_token": "</s>", "additional_special_tokens": ["<|user|>"] });
    assert_eq!(rendered(&[("special_tokens_map.json", map.clone())]), "<s></s>");
    // as in transformers the file wins where tokenizer_config.json has no added_tokens_decoder
    let config =
        json!({ "eos_token": "<|user|>", "pad_token": { "__type": "AddedToken", "content": "<unk>" } });
    assert_eq!(
        rendered(&[("special_tokens_map.json", map.clone()), ("tokenizer_config.json", config)]),
        "<s></s><unk>"
    );
    let config = json!({ "eos_token": "<|user|>", "added_tokens_decoder": {} });
    assert_eq!(rendered(&[("special_tokens_map.json", map), ("tokenizer_config.json", config)]), "<|user|>");
    let config = json!({ "bos_token": null, "extra_special_tokens": { "image_token": "<|image|>" } });
    assert_eq!(rendered(&[("tokenizer_config.json", config)]), "<|image|>");
}

#[test]
fn tokens_that_only_other_files_name_are_tokens() {
    let plain = tokenizer_with(&[]);
    assert!(plain.token_id("<|end|>").is_none());
    let size = plain.vocab_size();
    let tokenizer = tokenizer_with(&[
        ("added_tokens.json", json!({ "<|end|>": size, "<tag>": size + 1 })),
        ("special_tokens_map.json", json!({ "eos_token": "<|end|>" })),
    ]);
    let id = u32::try_from(size).unwrap();
    assert_eq!(tokenizer.encode("<|end|><tag>", false).unwrap(), [id, id + 1]);
    assert_eq!(tokenizer.special_token(id).as_deref(), Some("<|end|>"));
    assert_eq!(tokenizer.special_token(id + 1), None);
    assert_eq!(tokenizer.decode(&[id, id + 1]).unwrap(), "<tag>");
}

#[test]
fn the_time_is_formatted_as_by_strftime() {
    let year = render("{{ strftime_now('%Y') }}", "").unwrap();
    assert!(year.len() == 4 && year.parse::<u32>().unwrap() >= 2025, "{year}");
    assert!(render("{{ strftime_now('%!') }}", "").unwrap_err().contains("strftime_now"));
}

/// Templates and what transformers renders them as: `tests/fixtures/templates/make_templates.py`.
#[test]
fn templates_render_as_transformers_renders_them() {
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tests/fixtures/templates/templates.json")).unwrap();
    let mut failures = Vec::new();
    for case in cases["cases"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap();
        let messages: Vec<ChatMessage> = serde_json::from_value(case["messages"].clone()).unwrap();
        let special = cases["special_tokens"].as_object().unwrap().iter();
        let special =
            special.map(|(name, token)| (name.clone(), token.as_str().unwrap().to_owned())).collect();
        let generation = case["add_generation_prompt"].as_bool().unwrap();
        let mut options = ChatOptions::default().with_add_generation_prompt(generation);
        options.variables.clone_from(case["variables"].as_object().unwrap());
        let found = ChatTemplate::new(text("template"), special)
            .and_then(|template| template.render_with(&messages, &options));
        match (found, case["rendered"].as_str()) {
            (Ok(found), Some(expected)) if found == expected => {}
            (Err(error), None) if error.to_string().contains(case["error"].as_str().unwrap_or_default()) => {}
            (found, expected) => failures.push(format!("{}\n  {found:?}\n  {expected:?}", text("template"))),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
