//! Models: loaded when they are needed, unloaded when others are, and damaged ones.

use std::fs;
use std::path::{Path, PathBuf};

use jetmoe_serve::config::Config;
use jetmoe_serve::{Error, Server};
use jetmoe_testing::files;
use serde_json::{Value, json};

use crate::server::{TestServer, artifact, mini, model};

fn complete(server: &TestServer, name: &str) -> u16 {
    server.post("/v1/completions", &json!({"model": name, "prompt": "a", "max_tokens": 1})).status
}

fn loaded(server: &TestServer) -> Vec<String> {
    let list = server.get("/v1/models").success();
    let models = list["data"].as_array().unwrap().iter().filter(|model| model["loaded"] == json!(true));
    models.map(|model| model["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_model_is_loaded_by_its_first_request() {
    let server = TestServer::start(|config| mini(config).preload = false);
    assert!(loaded(&server).is_empty());
    assert_eq!(complete(&server, "mini"), 200);
    assert_eq!(loaded(&server), ["mini"]);
}

#[test]
fn an_alias_is_another_name_of_a_model() {
    let server = TestServer::start(|config| mini(config).aliases = vec!["gpt-3.5-turbo".to_owned()]);
    assert_eq!(complete(&server, "gpt-3.5-turbo"), 200);
    let card = server.get("/v1/models/gpt-3.5-turbo").success();
    assert_eq!((&card["id"], &card["root"]), (&json!("gpt-3.5-turbo"), &json!("mini")));
    assert_eq!(server.get("/v1/models/other").status, 404);
    assert_eq!(server.get("/v1/models/%ff").json()["error"]["param"], "model");
}

#[test]
fn the_least_recently_used_model_makes_room() {
    let size = largest(&artifact()).metadata().unwrap().len();
    let server = TestServer::start(|config| {
        config.models.clear();
        for name in ["a", "b", "c"] {
            let mut model = model(&artifact());
            (model.preload, model.prefix_bytes, model.capacity, model.slots) = (false, 0, Some(64), 1);
            config.models.insert(name.to_owned(), model);
        }
        // two models and their caches, and not three
        config.memory_bytes = Some(size * 5 / 2);
    });
    for (name, expected) in [("a", &["a"][..]), ("b", &["a", "b"]), ("a", &["a", "b"]), ("c", &["a", "c"])] {
        assert_eq!(complete(&server, name), 200);
        assert_eq!(loaded(&server), expected, "after {name}");
    }
}

#[test]
fn without_a_name_the_only_model_is_meant() {
    let server = TestServer::start(|_| {});
    assert_eq!(server.post("/tokenize", &json!({"prompt": "a"})).status, 200);
    let two = TestServer::start(|config| {
        let mut other = model(&artifact());
        other.preload = false;
        config.models.insert("other".to_owned(), other);
    });
    let refused = two.post("/tokenize", &json!({"prompt": "a"}));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("model")));
}

fn copy(to: &Path) {
    files::copy_folder(&artifact(), to);
}

/// The weights.
fn largest(folder: &Path) -> PathBuf {
    let paths = files::list(folder).into_iter().map(|name| folder.join(name)).filter(|path| path.is_file());
    paths.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

async fn bind(folder: &Path) -> Result<Server, Error> {
    let models = [("broken".to_owned(), model(folder))].into();
    Server::bind(Config { listen: ([127, 0, 0, 1], 0).into(), models, ..Config::default() }).await
}

#[tokio::test]
async fn a_damaged_artifact_is_refused_before_the_server_starts() {
    let folder = tempfile::tempdir().unwrap();
    let copied = folder.path().join("copy");
    copy(&copied);
    files::truncate(&largest(&copied), 1000);
    let error = bind(&copied).await.err().unwrap().to_string();
    assert!(error.starts_with("the model \"broken\": "), "{error}");
    fs::remove_dir_all(&copied).unwrap();
    let error = bind(&copied).await.err().unwrap().to_string();
    assert!(error.starts_with("the model \"broken\": "), "{error}");
}

/// An artifact that is damaged after the start, and loaded then.
#[test]
fn a_load_that_fails_is_the_error_of_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let copied = folder.path().join("copy");
    copy(&copied);
    let server = TestServer::start(|config| {
        let mut broken = model(&copied);
        broken.preload = false;
        config.models.insert("broken".to_owned(), broken);
    });
    files::truncate(&largest(&copied), 1000);
    let reply = server.post("/v1/completions", &json!({"model": "broken", "prompt": "a"}));
    let error: Value = reply.json()["error"].clone();
    assert_eq!(
        (reply.status, &error["code"], &error["param"]),
        (500, &json!("model_load_failed"), &json!("model"))
    );
    assert!(error["message"].as_str().unwrap().contains("\"broken\""), "{error}");
    assert!(!reply.text().contains(folder.path().to_str().unwrap()), "no path: {error}");
    assert_eq!(complete(&server, "mini"), 200, "others go on");
    fs::remove_dir_all(&copied).unwrap();
    copy(&copied);
    assert_eq!(complete(&server, "broken"), 200, "a later request loads it again");
}

#[test]
fn digests_are_compared_if_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let copied = folder.path().join("copy");
    copy(&copied);
    let weights = largest(&copied);
    let mut bytes = fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let server = TestServer::bind(|config| {
        config.models.clear();
        let mut changed = model(&copied);
        changed.verify_digests = true;
        config.models.insert("changed".to_owned(), changed);
    });
    let error = server.wait().unwrap_err().to_string();
    assert!(error.starts_with("the model \"changed\": "), "{error}");
}
