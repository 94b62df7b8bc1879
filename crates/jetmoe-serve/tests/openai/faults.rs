//! Faults: clients that are slow, leave, or send too much, and the end of the server under load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::{TestServer, mini, read_all, request};

const PATH: &str = "/v1/completions";

/// A stream of many tokens.
fn long_stream(prompt: &str) -> Vec<u8> {
    let body = json!({"model": "mini", "prompt": prompt, "max_tokens": 500, "ignore_eos": true, "temperature": 0, "stream": true});
    request(PATH, &body.to_string())
}

/// Waits for the first event of a stream.
fn first_event(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 256];
    while !text.contains("data: ") {
        let count = stream.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

/// Waits for the head of a response.
fn begun(stream: &mut TcpStream) {
    let mut head = [0; 15];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
}

/// Waits until a gauge has a value.
#[track_caller]
fn wait_for(server: &TestServer, gauge: &str, expected: u32) {
    let start = Instant::now();
    loop {
        let text = server.get("/metrics").text().to_owned();
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{gauge}{{")) || line.starts_with(&format!("{gauge} ")));
        let found: u32 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        if found == expected {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{gauge} is {found}, expected {expected}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let server = TestServer::start(|config| mini(config).slots = 1);
    for index in 0..3 {
        let mut stream = server.begin(&long_stream(&format!("In the beginning {index}")));
        first_event(&mut stream);
        drop(stream);
        // with one slot this waits until the stream that was left has ended
        let reply = server.post(PATH, &json!({"model": "mini", "prompt": "a", "max_tokens": 1}));
        assert_eq!(reply.status, 200);
        wait_for(&server, "jetmoe_engine_requests_running", 0);
    }
}

#[test]
fn a_client_that_leaves_before_its_answer_frees_its_slot() {
    let server = TestServer::start(|config| mini(config).slots = 1);
    let body = json!({"model": "mini", "prompt": "a", "max_tokens": 500, "ignore_eos": true});
    let stream = server.begin(&request(PATH, &body.to_string()));
    wait_for(&server, "jetmoe_engine_requests_running", 1);
    drop(stream);
    let reply = server.post(PATH, &json!({"model": "mini", "prompt": "a", "max_tokens": 1}));
    assert_eq!(reply.status, 200);
}

#[test]
fn half_a_body_ends_with_an_answer() {
    let server = TestServer::start(|config| config.limits.body_idle_seconds = 0.3);
    let bytes = request(PATH, &json!({"model": "mini", "prompt": "a"}).to_string());
    let reply = read_all(server.begin(&bytes[..bytes.len() - 5]));
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    assert!(reply.contains("\"body_too_slow\"") && reply.contains("connection: close"), "{reply}");
}

#[test]
fn half_a_head_ends_the_connection() {
    let server = TestServer::start(|config| config.limits.header_seconds = 0.3);
    for begun in [&b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"[..], b""] {
        let start = Instant::now();
        let reply = read_all(server.begin(begun));
        assert!(start.elapsed() < Duration::from_secs(20), "the connection is closed");
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 408"), "{reply}");
    }
}

#[test]
fn a_byte_a_second_is_too_slow() {
    let server = TestServer::start(|config| config.limits.body_idle_seconds = 60.0);
    let body = json!({"model": "mini", "prompt": "a".repeat(200)}).to_string();
    let bytes = request(PATH, &body);
    let (head, body) = bytes.split_at(bytes.len() - body.len());
    let mut stream = server.begin(head);
    let start = Instant::now();
    for byte in body {
        // the server closes the connection after its answer
        if stream.write_all(&[*byte]).is_err() || start.elapsed() > Duration::from_secs(8) {
            break;
        }
        thread::sleep(Duration::from_millis(250));
    }
    let reply = read_all(stream);
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn too_large_a_body_is_refused_at_once() {
    let server = TestServer::start(|config| config.limits.body_bytes = 1 << 20);
    let declared = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n";
    let reply = read_all(server.begin(declared.as_bytes()));
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
    assert!(reply.contains("\"body_too_large\""), "{reply}");
    // of a length that is not declared
    let mut stream =
        server.begin(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    for _ in 0..20 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let reply = read_all(stream);
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 413"), "{reply}");
    assert_eq!(server.get("/ready").status, 200);
}

#[test]
fn garbage_ends_its_connection_alone() {
    let server = TestServer::start(|_| {});
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
    {
        let reply = read_all(server.begin(bytes));
        assert!(
            reply.is_empty() || reply.starts_with("HTTP/1.1 4") || reply.starts_with("HTTP/1.1 505"),
            "{reply}"
        );
    }
    assert_eq!(server.get("/ready").status, 200);
}

#[test]
fn requests_in_progress_are_finished_when_the_server_ends() {
    let server = TestServer::start(|config| mini(config).slots = 2);
    let address = server.address;
    let mut streams: Vec<TcpStream> =
        (0..4).map(|index| server.begin(&long_stream(&format!("In the beginning {index}")))).collect();
    // all of them were taken
    for stream in &mut streams {
        begun(stream);
    }
    server.shutdown().drain();
    while TcpStream::connect(address).is_ok() {
        thread::sleep(Duration::from_millis(5));
    }
    for stream in streams {
        let reply = read_all(stream);
        assert!(reply.contains("data: [DONE]"), "{}", &reply[reply.len().saturating_sub(300)..]);
    }
    server.wait().unwrap();
}

#[test]
fn requests_that_take_too_long_end_with_an_error_event() {
    let server = TestServer::start(|config| {
        config.shutdown_seconds = 0.1;
        mini(config).slots = 1;
    });
    let mut streams: Vec<TcpStream> =
        (0..6).map(|index| server.begin(&long_stream(&format!("In the beginning {index}")))).collect();
    for stream in &mut streams {
        begun(stream);
    }
    server.shutdown().drain();
    let replies: Vec<String> = streams.into_iter().map(read_all).collect();
    for reply in &replies {
        assert!(reply.contains("\"shutting_down\"") || reply.contains("data: [DONE]"), "{reply}");
    }
    assert!(replies.iter().any(|reply| reply.contains("\"shutting_down\"")));
    server.wait().unwrap();
}

#[test]
fn a_client_that_takes_nothing_is_left() {
    let server = TestServer::start(|config| config.limits.write_seconds = 0.5);
    let body =
        json!({"model": "mini", "prompt": vec!["a"; 100], "max_tokens": 16, "logprobs": 20, "stream": true});
    // more than the buffers of both sides hold is written only if the client reads
    let streams: Vec<TcpStream> = (0..2).map(|_| server.begin(&request(PATH, &body.to_string()))).collect();
    // the request for the metrics alone
    wait_for(&server, "jetmoe_http_requests_in_flight", 1);
    drop(streams);
}
