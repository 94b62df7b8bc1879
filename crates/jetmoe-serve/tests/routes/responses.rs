//! `POST /v1/responses`.

use jetmoe_rt::{ChatMessage, Completion, GenerationOptions, Generator, Request};
use serde_json::{Value, json};

use crate::client::Event;
use crate::server::{assert_refused, assert_refused_with, model, post};

const PATH: &str = "/v1/responses";

/// The answer by the model itself.
fn run(messages: &[ChatMessage], new_tokens: usize) -> Completion {
    let options = GenerationOptions::default().with_max_new_tokens(new_tokens).with_log_probabilities(2);
    let request = Request::new(messages).with_options(options);
    Generator::new(&model("mini")).unwrap().run(request).unwrap()
}

fn greedy(fields: &Value) -> Value {
    let mut body = json!({"model": "mini", "temperature": 0, "max_output_tokens": 12});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn text(response: &Value) -> String {
    response["output"][0]["content"][0]["text"].as_str().unwrap().to_owned()
}

/// The fields that the schema of Open Responses requires.
const REQUIRED: [&str; 32] = [
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "model",
    "previous_response_id",
    "instructions",
    "output",
    "error",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "user",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
];

#[test]
fn a_response_has_the_answer_of_the_model() {
    let expected = run(&[ChatMessage::user("Who made the heaven?")], 12);
    let response = post(PATH, &greedy(&json!({"input": "Who made the heaven?"}))).success();
    for field in REQUIRED {
        assert!(response.get(field).is_some(), "{field} is missing");
    }
    assert_eq!(text(&response), expected.text);
    let (object, status) = (&response["object"], &response["status"]);
    assert_eq!((object, status), (&json!("response"), &json!("incomplete")));
    assert_eq!(response["incomplete_details"], json!({"reason": "max_output_tokens"}));
    let message = &response["output"][0];
    assert_eq!((&message["type"], &message["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(message["status"], json!("incomplete"));
    assert_eq!(message["content"][0]["logprobs"], json!([]));
    let usage = &response["usage"];
    assert_eq!(
        (&usage["input_tokens"], &usage["output_tokens"]),
        (&json!(expected.prompt_tokens), &json!(12))
    );
    assert_eq!(usage["total_tokens"], json!(expected.prompt_tokens + 12));
    assert_eq!(usage["output_tokens_details"], json!({"reasoning_tokens": 0}));
    assert!(usage["input_tokens_details"]["cached_tokens"].as_u64().unwrap() < expected.prompt_tokens as u64);
    assert_eq!((&response["store"], &response["temperature"]), (&json!(false), &json!(0.0)));
}

#[test]
fn messages_and_instructions_are_rendered_by_the_template() {
    let messages = [
        ChatMessage::system("Answer briefly."),
        ChatMessage::user("Who made the heaven?"),
        ChatMessage::assistant("God."),
        ChatMessage::system("Be exact."),
        ChatMessage::user("And the earth?"),
    ];
    let expected = run(&messages, 12);
    let input = json!([
        {"role": "user", "content": "Who made the heaven?"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "God."}]},
        {"role": "developer", "content": "Be exact."},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "And "}, {"type": "input_text", "text": "the earth?"},
        ]},
    ]);
    let response = post(PATH, &greedy(&json!({"input": input, "instructions": "Answer briefly."}))).success();
    assert_eq!(text(&response), expected.text);
    assert_eq!(response["usage"]["input_tokens"], json!(expected.prompt_tokens));
    assert_eq!(response["instructions"], json!("Answer briefly."));
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let expected = run(&[ChatMessage::user("Who made the heaven?")], 12);
    let fields = json!({"input": "Who made the heaven?", "top_logprobs": 2, "include": ["message.output_text.logprobs"]});
    let response = post(PATH, &greedy(&fields)).success();
    let found = response["output"][0]["content"][0]["logprobs"].as_array().unwrap();
    let expected = expected.log_probabilities.unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found["logprob"].as_f64().unwrap() as f32, expected.chosen);
        let best: Vec<f32> = expected.best.iter().map(|best| best.log_probability).collect();
        let top = found["top_logprobs"].as_array().unwrap();
        assert_eq!(top.iter().map(|top| top["logprob"].as_f64().unwrap() as f32).collect::<Vec<_>>(), best);
    }
    let bytes = found.iter().flat_map(|token| token["bytes"].as_array().unwrap());
    let bytes: Vec<u8> = bytes.map(|byte| byte.as_u64().unwrap() as u8).collect();
    assert_eq!(String::from_utf8(bytes).unwrap().trim_start(), text(&response).trim_start());
}

fn data(event: &Event) -> Value {
    serde_json::from_str(&event.data).unwrap()
}

#[test]
fn the_events_of_a_stream_give_the_response() {
    let fields = json!({"input": "Who made the heaven?", "top_logprobs": 1, "metadata": {"k": "v"}});
    let whole = post(PATH, &greedy(&fields)).success();
    let mut streamed = greedy(&fields);
    streamed["stream"] = json!(true);
    let events = post(PATH, &streamed).events();
    let (last, events) = events.split_last().unwrap();
    assert_eq!(last, &Event { name: String::new(), data: "[DONE]".to_owned() });
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    let begin = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ];
    let end = [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ];
    let (middle, found_end) = names[begin.len()..].split_at(names.len() - begin.len() - end.len());
    assert_eq!((&names[..begin.len()], found_end), (&begin[..], &end[..]));
    assert!(middle.len() > 3 && middle.iter().all(|name| *name == "response.output_text.delta"));
    for (index, event) in events.iter().enumerate() {
        assert_eq!(
            (&data(event)["type"], &data(event)["sequence_number"]),
            (&json!(event.name), &json!(index))
        );
    }

    let response = data(&events[events.len() - 1])["response"].clone();
    let id = &response["output"][0]["id"];
    let deltas = &events[begin.len()..begin.len() + middle.len()];
    let parts: String =
        deltas.iter().map(|event| data(event)["delta"].as_str().unwrap().to_owned()).collect();
    assert_eq!(parts, text(&whole));
    assert!(deltas.iter().all(|event| &data(event)["item_id"] == id));
    let sent: Vec<Value> =
        deltas.iter().flat_map(|event| data(event)["logprobs"].as_array().unwrap().clone()).collect();
    let all = whole["output"][0]["content"][0]["logprobs"].as_array().unwrap();
    assert_eq!(&sent[..], &all[..sent.len()]);
    let done = data(&events[names.len() - end.len()]);
    assert_eq!((&done["text"], &done["logprobs"]), (&json!(text(&whole)), &json!(all)));
    assert_eq!(data(&events[events.len() - 2])["item"], response["output"][0]);

    let first = data(&events[0])["response"].clone();
    assert_eq!(
        (&first["status"], &first["output"], &first["usage"]),
        (&json!("in_progress"), &json!([]), &Value::Null)
    );
    assert_eq!(first["id"], response["id"]);
    for field in REQUIRED {
        let differs = ["id", "created_at", "completed_at", "output", "usage"].contains(&field);
        assert!(differs || response[field] == whole[field], "{field}");
    }
    assert_eq!(response["metadata"], json!({"k": "v"}));
}

#[test]
fn json_follows_its_schema() {
    let schema = json!({
        "type": "object", "properties": {"name": {"enum": ["God", "Moses"]}, "is": {"type": "boolean"}},
        "required": ["name", "is"], "additionalProperties": false,
    });
    let format = json!({"type": "json_schema", "name": "answer", "schema": schema, "strict": true});
    let fields = json!({"input": "Who?", "text": {"format": format}, "max_output_tokens": 100});
    let response = post(PATH, &greedy(&fields)).success();
    assert_eq!(
        (&response["status"], &response["output"][0]["status"]),
        (&json!("completed"), &json!("completed"))
    );
    let answer: Value = serde_json::from_str(&text(&response)).unwrap();
    assert!(
        ["God", "Moses"].contains(&answer["name"].as_str().unwrap()) && answer["is"].is_boolean(),
        "{answer}"
    );
    assert!(response["completed_at"].as_u64() >= response["created_at"].as_u64());
    assert_eq!(response["text"]["format"]["name"], json!("answer"));
    let invalid = json!({"type": "json_schema", "name": "x", "schema": {"type": "other"}});
    assert_refused(PATH, &greedy(&json!({"input": "Who?", "text": {"format": invalid}})), "text.format");
}

/// With the fields that a client sends by default.
#[test]
fn sampling_is_that_of_the_checkpoint_by_default() {
    let response = post(PATH, &json!({"model": "mini", "input": "Who?", "max_output_tokens": 2})).success();
    assert_eq!((&response["temperature"], &response["top_p"]), (&json!(1.0), &json!(1.0)));
    let set =
        json!({"model": "mini", "input": "Who?", "max_output_tokens": 2, "temperature": 0.7, "top_p": 0.9});
    let response = post(PATH, &set).success();
    assert_eq!((&response["temperature"], &response["top_p"]), (&json!(0.7), &json!(0.9)));
}

#[test]
fn what_cannot_be_answered_is_refused_by_name() {
    for (fields, param) in [
        (json!({"input": ""}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": 1}), "input"),
        (
            json!({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}),
            "input[0].type",
        ),
        (json!({"input": "a", "max_output_tokens": 0}), "max_output_tokens"),
        (json!({"input": "a", "temperature": -1}), "temperature"),
        (json!({"input": "a", "top_p": 2}), "top_p"),
        (json!({"input": "a", "store": true}), "store"),
        (json!({"input": "a", "previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"input": "a", "tools": [{"type": "web_search"}]}), "tools"),
        (json!({"input": "a", "max_tokens": 3}), "max_tokens"),
        (json!({"input": "a", "model": "backbone"}), "model"),
    ] {
        assert_refused(PATH, &greedy(&fields), param);
    }
    assert_refused_with(PATH, &greedy(&json!({"input": "word ".repeat(600)})), (413, "input"));
    assert_refused_with(PATH, &greedy(&json!({"input": "a", "model": "other"})), (404, "model"));
    assert_refused(PATH, &json!({"model": "mini"}), "input");
}
