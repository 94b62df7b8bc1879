//! The service, started as a user starts it and called over HTTP.
//!
//! The variable `JETMOE_ARTIFACT` names the artifact: the exported test model jetmoe-mini.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A running service, stopped at the end of the test.
struct Service {
    process: Child,
    address: String,
    /// What it prints.
    output: Lines<BufReader<ChildStdout>>,
}

impl Service {
    fn start() -> Self {
        let artifact =
            std::env::var_os("JETMOE_ARTIFACT").expect("JETMOE_ARTIFACT names an artifact of jetmoe-mini");
        let mut process = Command::new(env!("CARGO_BIN_EXE_axum-service"))
            .arg(artifact)
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = output.next().expect("the service says where it listens").unwrap();
        let address = first.strip_prefix("listening on ").unwrap().to_owned();
        Service { process, address, output }
    }

    /// Sends a request, and returns the status and the rest of the response as it arrives.
    fn post(&self, body: &Value) -> (u16, BufReader<TcpStream>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let body = body.to_string();
        write!(
            stream,
            "POST /v1/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut response = BufReader::new(stream);
        let mut status = String::new();
        response.read_line(&mut status).unwrap();
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        (status, response)
    }

    /// The error of a request that is refused.
    fn refused(&self, body: &Value) -> (u16, Value) {
        let (status, mut response) = self.post(body);
        let mut rest = String::new();
        response.read_to_string(&mut rest).unwrap();
        let json = &rest[rest.find('{').unwrap()..=rest.rfind('}').unwrap()];
        (status, serde_json::from_str(json).unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The events of a stream, as they arrive.
fn events(response: BufReader<TcpStream>) -> impl Iterator<Item = Value> {
    let lines = response.lines().map(Result::unwrap);
    lines.filter_map(|line| Some(serde_json::from_str(line.strip_prefix("data: ")?).unwrap()))
}

#[test]
fn a_continuation_is_streamed() {
    let mut service = Service::start();
    let (status, response) = service.post(&json!({ "prompt": "In the beginning", "max_tokens": 12 }));
    assert_eq!(status, 200);
    let events: Vec<Value> = events(response).collect();
    let text: String = events.iter().map(|event| event["text"].as_str().unwrap()).collect();
    assert!(text.starts_with(" of the "), "{text:?}");
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last["finish_reason"], "max-new-tokens");
    assert!(before.len() == 11 && before.iter().all(|event| event["finish_reason"].is_null()), "{events:?}");
    assert_eq!(service.output.next().unwrap().unwrap(), "12 tokens, max-new-tokens");
}

#[test]
fn a_client_that_leaves_ends_its_generation_and_the_next_one_is_served() {
    let mut service = Service::start();
    let (status, response) = service.post(&json!({ "prompt": "And", "max_tokens": 100_000 }));
    assert_eq!(status, 200);
    let mut events_of_first = events(response);
    events_of_first.next().unwrap();
    drop(events_of_first);
    let line = service.output.next().unwrap().unwrap();
    assert!(line.ends_with(" tokens, cancelled"), "{line}");

    let (status, response) = service.post(&json!({ "prompt": "In the beginning", "max_tokens": 2 }));
    assert_eq!((status, events(response).count()), (200, 2));
}

#[test]
fn a_request_that_cannot_run_has_the_status_of_its_error() {
    let service = Service::start();
    for (body, status, kind) in [
        (json!({ "prompt": "word ".repeat(2_000) }), 413, "too-long"),
        (json!({ "prompt": "" }), 400, "invalid-input"),
        (json!({ "prompt": "x", "max_tokens": 0 }), 400, "invalid-input"),
    ] {
        let (found, answer) = service.refused(&body);
        assert_eq!((found, answer["error"]["type"].as_str()), (status, Some(kind)), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().len() > 10, "{answer}");
    }
}
