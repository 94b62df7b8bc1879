//! Errors: their status, their form, and the field that they name.

use serde_json::{Value, json};

use crate::server::{SERVER, with_model};

const PATH: &str = "/v1/completions";

fn completion(changes: Value) -> Value {
    let mut body = with_model(json!({"prompt": "a", "max_tokens": 1}));
    for (field, value) in changes.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

#[test]
fn a_field_that_is_not_valid_is_named() {
    for (changes, param) in [
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": 0, "top_p": 2}), "top_p"),
        (json!({"top_p": 2}), "top_p"),
        (json!({"min_p": -0.5}), "min_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"n": 0}), "n"),
        (json!({"n": 1000}), "n"),
        (json!({"best_of": 1, "n": 2}), "best_of"),
        (json!({"best_of": 2, "stream": true}), "best_of"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"logit_bias": {"100000": 1}}), "logit_bias"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": vec!["a"; 33]}), "stop"),
        (json!({"stop_token_ids": [100000]}), "stop_token_ids"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"temperatur": 1}), "temperatur"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [[]]}), "prompt"),
        (json!({"prompt": [5000000]}), "prompt"),
        (json!({"prompt": {"text": "a"}}), "prompt"),
        (json!({"prompt": "a\u{fdd0}"}), "prompt"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}}),
            "response_format",
        ),
        (
            json!({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}),
            "structured_outputs",
        ),
        (json!({"structured_outputs": {"regex": "("}}), "structured_outputs"),
        (json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}), "structured_outputs"),
    ] {
        let reply = SERVER.post(PATH, &completion(changes.clone()));
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["param"]), (400, &json!(param)), "{changes}: {error}");
        for field in ["message", "type", "code", "advice"] {
            assert!(error[field].is_string(), "{changes}: {error}");
        }
        assert_eq!(error["type"], "invalid_request_error");
    }
}

#[test]
fn statuses_follow_the_kind_of_the_error() {
    let too_long = SERVER.post(PATH, &completion(json!({"prompt": "word ".repeat(600)})));
    let error = &too_long.json()["error"];
    assert_eq!(
        (too_long.status, &error["code"], &error["param"]),
        (413, &json!("context_length_exceeded"), &json!("prompt"))
    );
    let unknown = SERVER.post(PATH, &completion(json!({"model": "gpt-4"})));
    let error = &unknown.json()["error"];
    assert_eq!(
        (unknown.status, &error["code"], &error["param"]),
        (404, &json!("model_not_found"), &json!("model"))
    );
    assert_eq!(SERVER.get("/v1/nothing").status, 404);
    assert_eq!(SERVER.get("/v1/completions").status, 405);
    assert_eq!(SERVER.get("/v1/nothing").json()["error"]["code"], "no_such_route");
}

#[test]
fn a_body_that_is_no_json_is_refused() {
    let post = |body: &[u8]| SERVER.post_bytes(PATH, &[("content-type", "application/json")], body);
    let deep = format!("{{\"prompt\": {}", "[".repeat(100_000));
    for (body, code) in [
        (&b"{"[..], "invalid_json"),
        (b"", "invalid_json"),
        (b"\xff\xfe", "invalid_utf8"),
        (b"[1]", "invalid_type"),
        (b"{} {}", "missing_parameter"),
        (deep.as_bytes(), "invalid_json"),
    ] {
        let reply = post(body);
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!(code)), "{}", reply.text());
    }
    let twice = br#"{"model": "mini", "prompt": "a", "prompt": "b"}"#;
    assert!(post(twice).json()["error"]["message"].as_str().unwrap().contains("duplicate field `prompt`"));
}

#[test]
fn a_body_of_another_type_is_refused() {
    let post = |content_type: &str| SERVER.post_bytes(PATH, &[("content-type", content_type)], b"{}");
    assert_eq!(post("text/plain").status, 415);
    assert_eq!(post("application/json; charset=utf-8").status, 400);
    let compressed = SERVER.post_bytes(PATH, &[("content-encoding", "gzip")], b"{}");
    assert_eq!(compressed.status, 415);
}

#[test]
fn every_response_has_the_id_of_its_request() {
    let reply = SERVER.post_bytes(PATH, &[("x-request-id", "abc-1")], b"{}");
    assert_eq!(reply.headers["x-request-id"], "abc-1");
    let own = SERVER.get("/health").headers["x-request-id"].clone();
    assert!(own.starts_with("req-") && own != SERVER.get("/health").headers["x-request-id"]);
    let long = "x".repeat(200);
    assert_ne!(SERVER.post_bytes(PATH, &[("x-request-id", &long)], b"{}").headers["x-request-id"], long);
}

#[test]
fn a_page_of_another_origin_is_refused() {
    let post = |headers: &[(&str, &str)]| SERVER.post_bytes(PATH, headers, b"{}").status;
    assert_eq!(post(&[("origin", "https://example.org")]), 403);
    assert_eq!(post(&[("origin", "null")]), 403);
    assert_eq!(post(&[("origin", "http://localhost")]), 400, "the page of this server");
}
