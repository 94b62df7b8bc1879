//! Keys, rates, and numbers of requests.

use std::time::Duration;

use serde_json::json;

use crate::server::{TestServer, mini, read_all, request};

const PATH: &str = "/v1/completions";

#[test]
fn a_server_with_keys_answers_those_who_have_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, "first\nsecond\n").unwrap();
    let server = TestServer::start(|config| config.keys_file = Some(file));
    let body = json!({"model": "mini", "prompt": "a", "max_tokens": 1}).to_string();
    let post = |headers: &[(&str, &str)]| server.post_bytes(PATH, headers, body.as_bytes());
    assert_eq!(post(&[("authorization", "Bearer second")]).status, 200);
    let refused = post(&[("authorization", "Bearer third")]);
    assert_eq!((refused.status, refused.headers["www-authenticate"].as_str()), (401, "Bearer"));
    assert_eq!(refused.json()["error"]["code"], "invalid_api_key");
    assert!(!refused.text().contains("third") && !refused.text().contains("first"));
    assert_eq!(post(&[]).json()["error"]["code"], "missing_api_key");
    assert_eq!(server.get("/v1/models").status, 401);
    for open in ["/", "/health", "/ready", "/metrics", "/docs", "/openapi.json"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }
}

#[test]
fn a_client_that_sends_too_much_waits() {
    let server = TestServer::start(|config| config.limits.requests_per_minute = Some(2));
    let statuses: Vec<u16> = (0..3).map(|_| server.get("/v1/models").status).collect();
    assert_eq!(statuses, [200, 200, 429]);
    let refused = server.get("/v1/models");
    assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
    let seconds: u64 = refused.headers["retry-after"].parse().unwrap();
    assert!((1..=60).contains(&seconds));
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_full_server_says_so() {
    let server = TestServer::start(|config| config.limits.requests = 1);
    let stream =
        json!({"model": "mini", "prompt": "a", "max_tokens": 400, "ignore_eos": true, "stream": true});
    let mut running = server.begin(&request(PATH, &stream.to_string()));
    std::io::Read::read_exact(&mut running, &mut [0; 12]).unwrap();
    let refused = server.get("/v1/models");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("too_many_requests")));
    assert_eq!(server.get("/ready").status, 200);
    drop(running);
    while server.get("/v1/models").status != 200 {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_full_queue_refuses_with_a_time() {
    let server = TestServer::start(|config| {
        let model = mini(config);
        (model.slots, model.queue) = (1, 1);
    });
    let body = json!({"model": "mini", "prompt": ["a", "b", "c"], "max_tokens": 400, "ignore_eos": true});
    let refused = server.post(PATH, &body);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("queue_full")));
    assert!(refused.headers["retry-after"].parse::<u64>().unwrap() >= 1);
    let after = server.post(PATH, &json!({"model": "mini", "prompt": "a", "max_tokens": 1}));
    assert_eq!(after.status, 200, "the jobs of the refused request are cancelled: {}", after.text());
}

/// The first of these times that is enough for the first step of a request is not enough for 500 of them, however fast the
/// machine is.
#[test]
fn a_request_ends_with_its_time() {
    let body =
        json!({"model": "mini", "prompt": "a", "max_tokens": 500, "ignore_eos": true, "temperature": 0});
    for seconds in [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4] {
        let server = TestServer::start(|config| config.limits.request_seconds = Some(seconds));
        let reply = server.post(PATH, &body);
        if reply.status == 504 {
            assert_eq!(reply.json()["error"]["code"], "deadline_exceeded");
            continue;
        }
        let choice = &reply.success()["choices"][0];
        let reasons = (&choice["finish_reason"], &choice["finish_detail"]);
        assert_eq!(reasons, (&json!("length"), &json!("deadline")), "after {seconds} s");
        return;
    }
    panic!("no request began in its time");
}

#[test]
fn more_tokens_than_the_server_allows_are_refused() {
    let server = TestServer::start(|config| config.limits.max_tokens = Some(3));
    let ask = |tokens: u64| server.post(PATH, &json!({"model": "mini", "prompt": "a", "max_tokens": tokens}));
    assert_eq!(ask(3).status, 200);
    assert_eq!((ask(4).status, &ask(4).json()["error"]["param"]), (400, &json!("max_tokens")));
    let default = server.post(PATH, &json!({"model": "mini", "prompt": "a", "ignore_eos": true})).success();
    assert_eq!(default["usage"]["completion_tokens"], 3);
}

#[test]
fn pages_of_allowed_origins_may_call_the_server() {
    let server = TestServer::start(|config| config.cors.origins = vec!["https://example.org".to_owned()]);
    let ask = |origin: &str| server.post_bytes("/tokenize", &[("origin", origin)], br#"{"prompt": "a"}"#);
    let allowed = ask("https://example.org");
    assert_eq!(
        (allowed.status, allowed.headers["access-control-allow-origin"].as_str()),
        (200, "https://example.org")
    );
    assert_eq!(ask("https://example.com").status, 403);
    let preflight = "OPTIONS /v1/completions HTTP/1.1\r\nhost: x\r\norigin: https://example.org\r\n\
                     access-control-request-method: POST\r\nconnection: close\r\n\r\n";
    let reply = read_all(server.begin(preflight.as_bytes()));
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("access-control-allow-methods"), "{reply}");
}
