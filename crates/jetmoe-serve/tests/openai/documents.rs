//! What the server says about itself: documents, metrics, models, tokens.

use serde_json::json;

use crate::server::{GENERATOR, SERVER};

#[test]
fn the_document_describes_the_routes() {
    let document = SERVER.get("/openapi.json").success();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/models",
        "/tokenize",
        "/detokenize",
        "/health",
        "/metrics",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let request = &document["components"]["schemas"]["CompletionRequest"];
    assert_eq!((&request["additionalProperties"], &request["required"]), (&json!(false), &json!(["prompt"])));
}

#[test]
fn the_documentation_is_a_page_of_its_own() {
    let page = SERVER.get("/docs");
    assert_eq!((page.status, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.text().contains("POST /v1/completions") && !page.text().contains("http://"));
    assert!(page.headers["content-security-policy"].contains("default-src 'none'"));
}

#[test]
fn metrics_are_open_metrics() {
    SERVER.complete(json!({"prompt": "a", "max_tokens": 2}));
    let reply = SERVER.get("/metrics");
    assert!(reply.headers["content-type"].starts_with("application/openmetrics-text"));
    let text = reply.text();
    assert!(text.ends_with("# EOF\n"));
    let line = "jetmoe_http_requests_total{route=\"/v1/completions\",method=\"POST\",status=\"200\"} ";
    assert!(text.contains(line), "{text}");
    for name in [
        "jetmoe_engine_generated_tokens_total{model=\"mini\"}",
        "jetmoe_engine_kv_cache_usage_ratio{model=\"mini\"}",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let mut unique = types.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(types.len(), unique.len(), "each metric has one type");
}

#[test]
fn texts_are_tokens_and_back() {
    let text = "In the beginning</s> \u{e9}";
    let expected = GENERATOR.model().tokenizer().unwrap().encode_split(text, true).unwrap();
    let reply = SERVER
        .post("/tokenize", &json!({"model": "mini", "prompt": text, "return_token_strs": true}))
        .success();
    assert_eq!((&reply["tokens"], &reply["count"]), (&json!(expected), &json!(expected.len())));
    assert_eq!((&reply["token_strs"][0], &reply["max_model_len"]), (&json!("<s>"), &json!(512)));
    let without = SERVER.post("/tokenize", &json!({"prompt": text, "add_special_tokens": false})).success();
    assert_eq!(without["tokens"], json!(expected[1..]));
    let back = SERVER.post("/detokenize", &json!({"model": "mini", "tokens": expected})).success();
    assert_eq!(back["prompt"], text);
    let refused = SERVER.post("/detokenize", &json!({"tokens": [1, 100000]}));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tokens")));
    for body in [
        json!({}),
        json!({"prompt": "a", "messages": []}),
        json!({"prompt": "a", "add_generation_prompt": true}),
    ] {
        assert_eq!(SERVER.post("/tokenize", &body).status, 400, "{body}");
    }
}

#[test]
fn models_are_listed_with_what_they_compute() {
    let list = SERVER.get("/v1/models").success();
    let card = &list["data"][0];
    assert_eq!(
        (&list["object"], &card["id"], &card["object"]),
        (&json!("list"), &json!("mini"), &json!("model"))
    );
    assert_eq!((&card["task"], &card["observes_experts"]), (&json!("causal-lm"), &json!(true)));
    assert!(card["created"].as_u64().unwrap() > 1_600_000_000);
}
