//! `/v2/models/…/generate`, `generate_stream`, and texts of `infer`.

use jetmoe_rt::{Completion, GenerationOptions, Generator, Multinomial, Request};
use serde_json::{Value, json};

use crate::server::{get, model, post, post_bytes};

const PROMPT: &str = "In the beginning";

fn options(new_tokens: usize) -> GenerationOptions {
    GenerationOptions::default().with_max_new_tokens(new_tokens).with_log_probabilities(0)
}

/// The continuation by the model itself.
fn run(prompt: &str, options: GenerationOptions) -> Completion {
    Generator::new(&model("mini")).unwrap().run(Request::new(prompt).with_options(options)).unwrap()
}

fn generate(path: &str, parameters: &Value) -> crate::client::Reply {
    post(&format!("/v2/models/mini/{path}"), &json!({"text_input": PROMPT, "parameters": parameters}))
}

#[test]
fn a_continuation_is_that_of_the_model() {
    let greedy = json!({"max_tokens": 12, "temperature": 0});
    let expected = run(PROMPT, options(12));
    let reply = generate("generate", &greedy).success();
    let head = json!({"text_output": expected.text, "model_name": "mini", "model_version": "1"});
    assert_eq!(reply, head);
    let drawn = json!({"max_tokens": 12, "temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 5});
    let sampling = Multinomial::new(0.8).with_top_k(20).with_top_p(0.9);
    let expected = run(PROMPT, options(12).with_sampling(sampling).with_seed(5));
    assert_eq!(generate("generate", &drawn).success()["text_output"], json!(expected.text));
    let version =
        post("/v2/models/mini/versions/1/generate", &json!({"text_input": PROMPT, "parameters": drawn}));
    assert_eq!(version.success()["text_output"], json!(expected.text));
}

#[test]
fn details_have_the_tokens_and_the_reason_of_the_end() {
    let expected = run(PROMPT, options(6));
    let parameters = json!({"max_tokens": 6, "temperature": 0, "details": true});
    let details = generate("generate", &parameters).success()["details"].clone();
    assert_eq!(details["finish_reason"], json!("length"));
    let tokens = details["logprobs"].as_array().unwrap();
    let ids: Vec<u32> = tokens.iter().map(|token| token["id"].as_u64().unwrap() as u32).collect();
    assert_eq!(ids, expected.token_ids);
    let logprobs: Vec<f32> = tokens.iter().map(|token| token["logprob"].as_f64().unwrap() as f32).collect();
    let chosen: Vec<f32> = expected.log_probabilities.unwrap().iter().map(|found| found.chosen).collect();
    assert_eq!(logprobs, chosen);
    assert!(tokens.iter().all(|token| token["special"] == json!(false)));
    let parameters = json!({"max_tokens": 200, "temperature": 0, "details": true, "stop": ["king"]});
    let reply = generate("generate", &parameters).success();
    assert_eq!(reply["details"]["finish_reason"], json!("stop_sequence"));
    let expected = run(PROMPT, options(200).with_stop(["king"]));
    assert_eq!(reply["text_output"], json!(expected.text));
}

#[test]
fn the_parts_of_a_stream_are_the_whole() {
    for details in [false, true] {
        let parameters = json!({"max_tokens": 12, "temperature": 0, "details": details});
        let whole = generate("generate", &parameters).success();
        let parts: Vec<Value> = generate("generate_stream", &parameters)
            .events()
            .iter()
            .map(|event| serde_json::from_str(&event.data).unwrap())
            .collect();
        let text: String = parts.iter().map(|part| part["text_output"].as_str().unwrap()).collect();
        assert_eq!(json!(text), whole["text_output"]);
        assert!(parts.iter().all(|part| part["model_name"] == json!("mini")));
        assert!(parts.len() > 3);
        if details {
            let tokens: Vec<&Value> = parts.iter().map(|part| &part["details"]["token"]).collect();
            assert_eq!(json!(tokens), whole["details"]["logprobs"]);
            let reasons: Vec<&Value> = parts.iter().map(|part| &part["details"]["finish_reason"]).collect();
            assert_eq!(reasons.last(), Some(&&json!("length")));
            assert!(reasons[..reasons.len() - 1].iter().all(|reason| reason.is_null()));
        } else {
            assert!(parts.iter().all(|part| part.get("details").is_none()));
        }
    }
}

#[test]
fn texts_of_a_tensor_are_continued_in_their_order() {
    let prompts = ["In the beginning", "And God said,", "Blessed are"];
    let expected: Vec<String> = prompts.iter().map(|prompt| run(prompt, options(8)).text).collect();
    let input = json!({"name": "text_input", "shape": [3, 1], "datatype": "BYTES", "data": prompts});
    let parameters = json!({"max_tokens": 8, "temperature": 0});
    let request = json!({"inputs": [input], "parameters": parameters});
    let output = &post("/v2/models/mini/infer", &request).success()["outputs"][0];
    let expected_output =
        json!({"name": "text_output", "datatype": "BYTES", "shape": [3, 1], "data": expected});
    assert_eq!(output, &expected_output);

    let mut tail = Vec::new();
    for prompt in prompts {
        tail.extend((prompt.len() as u32).to_le_bytes());
        tail.extend(prompt.as_bytes());
    }
    let input = json!({"name": "text_input", "shape": [3], "datatype": "BYTES", "parameters": {"binary_data_size": tail.len()}});
    let parameters = json!({"max_tokens": 8, "temperature": 0, "binary_data_output": true});
    let json = json!({"inputs": [input], "parameters": parameters}).to_string();
    let (name, length) = ("inference-header-content-length", json.len().to_string());
    let reply = post_bytes("/v2/models/mini/infer", &[(name, &length)], &[json.as_bytes(), &tail].concat());
    let mut bytes = &reply.body[reply.headers[name].parse().unwrap()..];
    for expected in expected {
        let (length, rest) = bytes.split_first_chunk::<4>().unwrap();
        let (text, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        assert_eq!(text, expected.as_bytes());
        bytes = rest;
    }
    assert!(bytes.is_empty());
}

#[test]
fn what_cannot_be_generated_is_refused() {
    let refused = |body: Value, status: u16, part: &str| {
        for path in ["generate", "generate_stream"] {
            let reply = post(&format!("/v2/models/mini/{path}"), &body);
            assert_eq!(reply.status, status, "{}", reply.text());
            let message = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(message.contains(part), "{body}: {message}");
        }
    };
    refused(json!({"text_input": ""}), 400, "empty");
    refused(json!({}), 400, "text_input");
    refused(json!({"text_input": 1}), 400, "text_input");
    refused(json!({"text_input": "a", "text": "b"}), 400, "text");
    refused(json!({"text_input": "a", "parameters": {"max_tokens": 0}}), 400, "max_tokens");
    refused(json!({"text_input": "a", "parameters": {"temperature": -1}}), 400, "temperature");
    refused(json!({"text_input": "a", "parameters": {"beams": 2}}), 400, "beams");
    refused(json!({"text_input": "word ".repeat(600)}), 413, "positions");
    for name in ["backbone", "classifier"] {
        let reply = post(&format!("/v2/models/{name}/generate"), &json!({"text_input": "a"}));
        assert_eq!(reply.status, 400, "{}", reply.text());
        let text =
            json!({"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]}]});
        let reply = post(&format!("/v2/models/{name}/infer"), &text);
        assert!(reply.status == 400 && reply.text().contains("text_input"), "{}", reply.text());
    }
    let details = json!({
        "inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]}],
        "parameters": {"details": true},
    });
    assert_eq!(post("/v2/models/mini/infer", &details).status, 400);
    assert_eq!(get("/v2/models/mini/generate").status, 405);
}

/// The text of a control token is encoded as text, so it ends nothing.
#[test]
fn a_control_token_in_a_text_is_text() {
    let prompt = "In the</s> beginning";
    let ids = model("mini").tokenizer().unwrap().encode_split(prompt, true).unwrap();
    let generator = Generator::new(&model("mini")).unwrap();
    let expected = generator.run(Request::new(ids).with_options(options(5))).unwrap();
    let body = json!({"text_input": prompt, "parameters": {"max_tokens": 5, "temperature": 0}});
    assert_eq!(post("/v2/models/mini/generate", &body).success()["text_output"], json!(expected.text));
}
