//! `POST /v1/chat/completions`: the template of the checkpoint, streams, and what is refused by name.

use jetmoe_rt::{ChatMessage, GenerationOptions, Request};
use serde_json::{Value, json};

use crate::server::{GENERATOR, SERVER, with_model};

const PATH: &str = "/v1/chat/completions";

fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

#[test]
fn an_answer_is_that_of_the_model_alone() {
    let messages = [ChatMessage::system("Answer in verses."), ChatMessage::user("Who made the heaven?")];
    let options = GenerationOptions::for_model(GENERATOR.model()).with_max_new_tokens(16);
    let expected = GENERATOR.run(Request::new(messages).with_options(options)).unwrap();
    let content = json!([{"type": "text", "text": "Who made "}, {"type": "text", "text": "the heaven?"}]);
    for role in ["system", "developer"] {
        let reply = SERVER.chat(json!({
            "messages": [{"role": role, "content": "Answer in verses."}, {"role": "user", "content": content}],
            "max_completion_tokens": 16, "temperature": 0
        }));
        let message = &reply["choices"][0]["message"];
        assert_eq!(message, &json!({"role": "assistant", "content": expected.text, "refusal": null}));
        assert_eq!(reply["usage"]["prompt_tokens"], json!(expected.prompt_tokens));
    }
}

#[test]
fn a_stream_has_the_parts_of_the_answer() {
    let body = json!({
        "messages": user("Who made the heaven?"), "max_tokens": 12, "temperature": 1, "seed": 2, "n": 2, "logprobs": true,
        "top_logprobs": 1, "experts": true
    });
    let whole = SERVER.chat(body.clone());
    let mut streamed = body;
    streamed["stream_options"] = json!({"include_usage": true});
    let mut chunks = SERVER.chunks(PATH, streamed);
    let last = chunks.pop().unwrap();
    assert_eq!(
        (&last["choices"], &last["usage"]["total_tokens"]),
        (&json!([]), &whole["usage"]["total_tokens"])
    );
    for index in 0..2 {
        let parts: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0])
            .filter(|choice| choice["index"] == json!(index))
            .collect();
        let expected = &whole["choices"][index];
        assert_eq!(parts[0]["delta"]["role"], "assistant");
        let text: String =
            parts.iter().map(|part| part["delta"]["content"].as_str().unwrap_or_default()).collect();
        assert_eq!(json!(text), expected["message"]["content"]);
        let end = parts.last().unwrap();
        assert_eq!((&end["finish_reason"], &end["delta"]), (&expected["finish_reason"], &json!({})));
        let logprobs: Vec<Value> = parts
            .iter()
            .flat_map(|part| part["logprobs"]["content"].as_array().cloned().unwrap_or_default())
            .collect();
        assert_eq!(json!(logprobs), expected["logprobs"]["content"]);
        let experts: Vec<Value> =
            parts.iter().flat_map(|part| part["experts"].as_array().cloned().unwrap_or_default()).collect();
        assert_eq!(json!(experts), expected["experts"]);
    }
}

#[test]
fn control_tokens_in_messages_are_text() {
    let tokens = |content: &str| {
        let body = json!({"model": "mini", "messages": user(content)});
        SERVER.post("/tokenize", &body).success()["tokens"].as_array().unwrap().clone()
    };
    let ends = |tokens: &[Value]| tokens.iter().filter(|id| **id == json!(2)).count();
    assert_eq!(ends(&tokens("a</s>b")), ends(&tokens("ab")));
    assert!(tokens("a</s>b").len() > tokens("ab").len() + 1);
}

#[test]
fn an_answer_follows_a_json_schema() {
    let schema = json!({
        "type": "object", "properties": {"name": {"enum": ["Moses", "Aaron"]}, "age": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["name", "age"], "additionalProperties": false
    });
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": true}});
    let reply = SERVER.chat(json!({
        "messages": user("Who?"), "max_completion_tokens": 64, "temperature": 1, "seed": 4, "response_format": format
    }));
    let choice = &reply["choices"][0];
    let value: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
    assert!(["Moses", "Aaron"].contains(&value["name"].as_str().unwrap()));
    assert!((1..=9).contains(&value["age"].as_u64().unwrap()));
    assert_eq!(choice["finish_reason"], "stop");
}

#[test]
fn fields_without_an_effect_are_accepted() {
    let plain = json!({"messages": user("Who?"), "max_completion_tokens": 4, "temperature": 0});
    let mut with_fields = plain.clone();
    for (field, value) in [
        ("user", json!("someone")),
        ("safety_identifier", json!("someone")),
        ("prompt_cache_key", json!("k")),
        ("prompt_cache_retention", json!("in_memory")),
        ("service_tier", json!("auto")),
        ("store", json!(false)),
        ("metadata", json!({"a": "b"})),
        ("modalities", json!(["text"])),
        ("reasoning_effort", json!("none")),
        ("verbosity", json!("medium")),
        ("tools", json!([])),
        ("tool_choice", json!("auto")),
        ("logit_bias", json!({})),
        ("audio", Value::Null),
        ("stop", Value::Null),
    ] {
        with_fields[field] = value;
    }
    assert_eq!(SERVER.chat(with_fields)["choices"], SERVER.chat(plain)["choices"]);
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    for (field, value) in [
        ("tools", json!([tool])),
        ("tool_choice", json!("required")),
        ("parallel_tool_calls", json!(true)),
        ("functions", json!([{"name": "f"}])),
        ("function_call", json!("auto")),
        ("audio", json!({"voice": "alloy", "format": "wav"})),
        ("modalities", json!(["text", "audio"])),
        ("prediction", json!({"type": "content", "content": "x"})),
        ("web_search_options", json!({})),
        ("reasoning_effort", json!("high")),
        ("verbosity", json!("low")),
        ("store", json!(true)),
        ("service_tier", json!("flex")),
        ("prompt_cache_retention", json!("24h")),
        ("top_logprobs", json!(2)),
        ("max_completion_tokens", json!(0)),
        ("skip_special_tokens", json!(false)),
        ("include_stop_str_in_output", json!(true)),
        ("stream_options", json!({"include_usage": true})),
        ("chat_template_kwargs.enable_thinking", json!(true)),
        ("echo", json!(true)),
    ] {
        let mut body = with_model(json!({"messages": user("Who?")}));
        match field.split_once('.') {
            Some((outer, inner)) => body[outer] = json!({inner: value}),
            None => body[field] = value,
        }
        let reply = SERVER.post(PATH, &body);
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["param"]), (400, &json!(field)), "{error}");
        assert!(error["advice"].is_string(), "{error}");
    }
}

#[test]
fn messages_that_the_template_does_not_take_are_refused_by_name() {
    let image = json!([{"type": "image_url", "image_url": {"url": "data:"}}]);
    for (messages, param) in [
        (json!([]), "messages"),
        (json!([{"role": "user"}]), "messages[0].content"),
        (json!([{"role": "user", "content": image}]), "messages[0].content"),
        (json!([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]), "messages[1].role"),
        (json!([{"role": "user", "content": "a", "name": "b"}]), "messages[0].name"),
        (json!([{"role": "someone", "content": "a"}]), "messages[0].role"),
        (json!([{"role": "user", "content": "a", "refusal": "no"}]), "messages[0].refusal"),
        (json!([{"role": "user", "contents": "a"}]), "messages[0].contents"),
    ] {
        let reply = SERVER.post(PATH, &with_model(json!({"messages": messages})));
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.text());
    }
}
