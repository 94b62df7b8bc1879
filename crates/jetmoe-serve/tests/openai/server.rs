//! Servers with the configuration that a test needs, and the same model without one.

use std::io::{Read, Write};
use std::net::{Shutdown as End, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use jetmoe_checkpoint::Checkpoint;
use jetmoe_export::{ExportOptions, export};
use jetmoe_rt::{Generator, LoadOptions, Model, Precision, Profile};
use jetmoe_serve::config::{Config, ModelConfig};
use jetmoe_serve::{Error, Server, Shutdown};
use jetmoe_testing::fixtures;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::client::{Event, Reply, send};

/// The artifact. Its destructor never runs, so it is in the folder for temporary files of tests.
static ARTIFACT: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = fixtures::checkpoint("jetmoe-mini");
    let options = ExportOptions {
        profile: Profile::Native,
        precision: Precision::Bf16,
        ..ExportOptions::new(source.display().to_string(), folder.path().join("mini"))
    };
    export(&Checkpoint::open(&source).unwrap(), &options).unwrap();
    folder
});

/// The server of the tests that need no other one. It observes experts.
pub(crate) static SERVER: LazyLock<TestServer> =
    LazyLock::new(|| TestServer::start(|config| mini(config).observe_experts = true));

/// The model without a server.
pub(crate) static GENERATOR: LazyLock<Generator> = LazyLock::new(|| {
    let tract = jetmoe_rt::backend("tract").unwrap();
    let options = LoadOptions::default().with_backend(tract).with_threads(1);
    Generator::new(&Model::load(artifact(), &options).unwrap()).unwrap()
});

/// The folder of the artifact.
pub(crate) fn artifact() -> PathBuf {
    ARTIFACT.path().join("mini")
}

/// The configuration of a model in a folder.
pub(crate) fn model(folder: &Path) -> ModelConfig {
    ModelConfig {
        backend: Some("tract".to_owned()),
        threads: Some(1),
        slots: 4,
        prefix_bytes: 1 << 20,
        ..ModelConfig::new(folder)
    }
}

/// The model of a configuration.
pub(crate) fn mini(config: &mut Config) -> &mut ModelConfig {
    config.models.get_mut("mini").unwrap()
}

/// A server that runs until it is dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    shutdown: Shutdown,
    running: Option<JoinHandle<Result<(), Error>>>,
    runtime: Option<Runtime>,
}

impl TestServer {
    /// Starts a server with a changed configuration, and waits until its models are loaded.
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Self {
        let server = Self::bind(change);
        while server.get("/ready").status != 200 {
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Starts a server that may fail to load its models.
    pub(crate) fn bind(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            models: [("mini".to_owned(), model(&artifact()))].into(),
            ..Config::default()
        };
        change(&mut config);
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(Server::bind(config)).unwrap();
        let (address, shutdown) = (server.local_addr(), server.shutdown().clone());
        let running = Some(runtime.spawn(server.run()));
        TestServer { address, shutdown, running, runtime: Some(runtime) }
    }

    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Waits for the end of the server.
    pub(crate) fn wait(mut self) -> Result<(), Error> {
        let running = self.running.take().unwrap();
        self.runtime.as_ref().unwrap().block_on(running).unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_bytes(path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    pub(crate) fn post_bytes(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        send(self.address, "POST", path, headers, body)
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        send(self.address, "GET", path, &[], &[])
    }

    /// A completion that must be a success.
    #[track_caller]
    pub(crate) fn complete(&self, body: Value) -> Value {
        self.post("/v1/completions", &with_model(body)).success()
    }

    /// A chat completion that must be a success.
    #[track_caller]
    pub(crate) fn chat(&self, body: Value) -> Value {
        self.post("/v1/chat/completions", &with_model(body)).success()
    }

    /// The chunks of a streamed answer, whose last event must be `[DONE]`.
    #[track_caller]
    pub(crate) fn chunks(&self, path: &str, body: Value) -> Vec<Value> {
        let mut body = with_model(body);
        body["stream"] = json!(true);
        let mut events = self.post(path, &body).events();
        assert_eq!(events.pop().map(|event| event.data).as_deref(), Some("[DONE]"));
        events.iter().map(Event::json).collect()
    }

    /// A connection on which a request was begun.
    pub(crate) fn begin(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.drain();
        self.shutdown.end();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

pub(crate) fn with_model(mut body: Value) -> Value {
    body["model"] = json!("mini");
    body
}

/// The head and body of a request.
pub(crate) fn request(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    (head + body).into_bytes()
}

/// Everything that comes on a connection until its end.
pub(crate) fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // an end by the other side with bytes that it did not read is a reset on some systems
    let _end = stream.read_to_end(&mut bytes);
    let _end = stream.shutdown(End::Both);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Texts of the held-out part.
pub(crate) fn passages(count: usize) -> Vec<String> {
    let file = std::fs::read_to_string(fixtures::checkpoint("jetmoe-mini").join("eval.jsonl")).unwrap();
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    file.lines().map(text).take(count).collect()
}
