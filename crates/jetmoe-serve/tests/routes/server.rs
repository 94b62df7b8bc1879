//! A server with a model of each task, and the same models without a server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use jetmoe_checkpoint::Checkpoint;
use jetmoe_export::{ExportOptions, export};
use jetmoe_rt::{LoadOptions, Model, Precision, Profile, Task};
use jetmoe_serve::Server;
use jetmoe_serve::config::{Config, ModelConfig};
use jetmoe_testing::fixtures;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::client::{Reply, send};

/// Names of the models, their checkpoints, tasks and profiles.
const MODELS: [(&str, &str, Task, Profile); 5] = [
    ("mini", "jetmoe-mini", Task::CausalLm, Profile::Native),
    ("backbone", "jetmoe-mini", Task::Backbone, Profile::Native),
    ("backbone-portable", "jetmoe-mini", Task::Backbone, Profile::Portable),
    ("classifier", "jetmoe-mini-classifier", Task::SequenceClassification, Profile::Native),
    ("classifier-portable", "jetmoe-mini-classifier", Task::SequenceClassification, Profile::Portable),
];

/// The folder of all artifacts. Its destructor never runs, so it is in the folder for temporary files of tests.
static ARTIFACTS: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (name, checkpoint, task, profile) in MODELS {
        let source = fixtures::checkpoint(checkpoint);
        let options = ExportOptions {
            task: Some(task),
            profile,
            // native graphs have no float32
            precision: if profile == Profile::Native { Precision::Bf16 } else { Precision::F32 },
            ..ExportOptions::new(source.display().to_string(), folder.path().join(name))
        };
        export(&Checkpoint::open(&source).unwrap(), &options).unwrap();
    }
    folder
});

static SERVER: LazyLock<TestServer> = LazyLock::new(TestServer::start);

struct TestServer {
    address: SocketAddr,
    _runtime: Runtime,
}

fn folder(name: &str) -> PathBuf {
    ARTIFACTS.path().join(name)
}

fn config() -> Config {
    let model = |name: &str| ModelConfig {
        backend: Some("tract".to_owned()),
        threads: Some(1),
        slots: 4,
        prefix_bytes: 1 << 20,
        ..ModelConfig::new(folder(name))
    };
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        models: MODELS.into_iter().map(|(name, ..)| (name.to_owned(), model(name))).collect(),
        ..Config::default()
    }
}

impl TestServer {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(Server::bind(config())).unwrap();
        let address = server.local_addr();
        runtime.spawn(server.run());
        let test_server = TestServer { address, _runtime: runtime };
        // it loads the models
        while send(address, "GET", "/ready", &[], &[]).status != 200 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        test_server
    }
}

/// Sends JSON.
pub(crate) fn post(path: &str, body: &Value) -> Reply {
    post_bytes(path, &[("content-type", "application/json")], body.to_string().as_bytes())
}

pub(crate) fn post_bytes(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    send(SERVER.address, "POST", path, headers, body)
}

pub(crate) fn get(path: &str) -> Reply {
    send(SERVER.address, "GET", path, &[], &[])
}

/// The model of a name, without the server.
pub(crate) fn model(name: &str) -> Model {
    load(&folder(name))
}

fn load(folder: &Path) -> Model {
    let tract = jetmoe_rt::backend("tract").unwrap();
    Model::load(folder, &LoadOptions::default().with_backend(tract).with_threads(1)).unwrap()
}

/// Asserts that a request is refused with status 400 and the parameter.
#[track_caller]
pub(crate) fn assert_refused(path: &str, body: &Value, param: &str) {
    assert_refused_with(path, body, (400, param));
}

/// Asserts that a request is refused with a status and a parameter.
#[track_caller]
pub(crate) fn assert_refused_with(path: &str, body: &Value, expected: (u16, &str)) {
    let reply = post(path, body);
    let found = reply.json()["error"]["param"].clone();
    assert_eq!((reply.status, &found), (expected.0, &json!(expected.1)), "{body}: {}", reply.text());
}

/// Texts of the held-out part, the shortest first.
pub(crate) fn passages(count: usize) -> Vec<String> {
    let file =
        std::fs::read_to_string(fixtures::checkpoint("jetmoe-mini-classifier").join("eval.jsonl")).unwrap();
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    file.lines().map(text).take(count).collect()
}

/// Numbers as float32.
pub(crate) fn floats(numbers: &Value) -> Vec<f32> {
    numbers.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

/// Little-endian numbers.
pub(crate) fn floats_of_bytes(bytes: &[u8]) -> Vec<f32> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    numbers.iter().map(|number| f32::from_le_bytes(*number)).collect()
}
