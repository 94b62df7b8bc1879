//! `jetmoe serve`: its configuration, and its end by a signal under load.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use jetmoe_testing::assert_transcript;

use crate::context::{context_with_artifact, new_context};

/// A server of this process, which is killed when a test fails.
struct Serving {
    child: Child,
    address: String,
    /// What it logs after its first line.
    log: Option<thread::JoinHandle<String>>,
}

impl Serving {
    fn new(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the server listens").unwrap();
            if let Some((_, address)) = line.split_once("listening address=") {
                break address.to_owned();
            }
        };
        let log = thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>().join("\n"));
        let serving = Serving { child, address, log: Some(log) };
        while !serving.get("/ready").starts_with("HTTP/1.1 200") {
            thread::sleep(Duration::from_millis(20));
        }
        serving
    }

    fn begin(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn get(&self, path: &str) -> String {
        read(self.begin(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")))
    }

    /// A stream of many tokens.
    fn stream(&self, prompt: &str) -> TcpStream {
        let body = format!(
            "{{\"prompt\": \"{prompt}\", \"max_tokens\": 300, \"ignore_eos\": true, \"temperature\": 0, \"stream\": true}}"
        );
        self.begin(&format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// The exit status, and the log.
    fn wait(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // it has ended, unless the test failed
        let _killed = self.child.kill();
    }
}

fn read(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // a connection that is refused meanwhile
    let _end = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_signal_ends_the_server_when_its_requests_are_answered() {
    let context = context_with_artifact("jetmoe-mini");
    for signal in ["TERM", "INT"] {
        let line = "jetmoe serve artifact --listen 127.0.0.1:0 --set models.artifact.backend=tract --set models.artifact.slots=2";
        let serving = Serving::new(context.command(line).start());
        let mut streams: Vec<TcpStream> =
            (0..4).map(|index| serving.stream(&format!("In the beginning {index}"))).collect();
        // the first one has begun, so all requests are there
        let mut head = [0; 15];
        for stream in &mut streams {
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 200 OK");
        }
        serving.signal(signal);
        for stream in streams {
            let reply = read(stream);
            assert!(reply.contains("data: [DONE]"), "{signal}: {reply}");
        }
        let (status, log) = serving.wait();
        assert_eq!(status, Some(0), "{log}");
        let folder = context.path("artifact");
        assert!(!log.contains(folder.to_str().unwrap()), "no path in the log: {log}");
        assert!(log.contains("request id=") && log.contains("status=200"), "{log}");
    }
}

#[test]
fn the_configuration_is_printed_with_every_default() {
    let context = new_context();
    std::fs::write(
        context.path("serve.toml"),
        "listen = \"127.0.0.1:8081\"\n[limits]\nrequests = 8\n[models.chat]\nfolder = \"somewhere\"\n",
    )
    .unwrap();
    let line =
        "jetmoe serve --config serve.toml --model other=elsewhere --set models.chat.slots=2 --print-config";
    let output = context.command(line).environment("JETMOE_SERVE_LIMITS__REQUESTS", "9").run();
    assert!(output.succeeded().contains("requests = 9"));
    assert_transcript!(output);
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    let context = new_context();
    let lines = [
        "jetmoe serve --print-config",
        "jetmoe serve --model a=b --set limits.request=1",
        "jetmoe serve --model a=b --set limits.requests=0",
        "jetmoe serve --model a=b --set models.a.precision=q9",
        "jetmoe serve --model a=b --config missing.toml",
        "jetmoe serve --model a=b",
    ];
    let outputs: Vec<_> = lines.iter().map(|line| context.run(line)).collect();
    for output in &outputs {
        output.refused();
    }
    jetmoe_testing::assert_text!(jetmoe_testing::CommandOutput::transcripts(&outputs), []);
}
