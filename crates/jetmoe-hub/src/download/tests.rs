use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hf_hub::progress::{DownloadEvent, FileProgress, FileStatus, ProgressHandler};
use jetmoe_checkpoint::names;
use jetmoe_testing::hub::{COMMIT, Contents, Fault, ID, MockHub};
use serde_json::json;
use tempfile::TempDir;

use super::progress::ProgressTracker;
use super::settings::Settings;
use super::{RepoFile, Request};
use crate::{Content, DownloadObserver, DownloadProgress, Error, HubOptions};

mod repositories;
mod transfers;

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

fn files(names: &[&str]) -> BTreeMap<String, Vec<u8>> {
    names.iter().map(|name| ((*name).to_owned(), format!("contents of {name}").into_bytes())).collect()
}

/// A repository with one file of weights, and files that a checkpoint does not need.
fn single() -> Contents {
    let files = files(&[
        names::CONFIG,
        names::TOKENIZER,
        names::WEIGHTS,
        "README.md",
        "pytorch_model.bin",
        "onnx/config.json",
        "onnx/model.onnx",
    ]);
    Contents { files, ..Contents::default() }
}

/// A repository with two shards, and a third file that the index does not name.
fn sharded() -> Contents {
    let mut files = files(&[
        names::CONFIG,
        names::GENERATION_CONFIG,
        names::TOKENIZER,
        names::TOKENIZER_CONFIG,
        names::CHAT_TEMPLATE,
        SHARDS[0],
        SHARDS[1],
        "model-00003-of-00002.safetensors",
    ]);
    let index = json!({ "weight_map": { "a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0] } });
    files.insert(names::WEIGHTS_INDEX.to_owned(), index.to_string().into_bytes());
    Contents { files, ..Contents::default() }
}

fn settings(endpoint: &str, cache: &TempDir) -> Settings {
    Settings {
        endpoint: endpoint.to_owned(),
        token: None,
        token_file: None,
        cache_dir: cache.path().to_owned(),
        offline: false,
        disable_xet: false,
        content: Content::Any,
        observer: None,
        retry_delay: Duration::from_millis(1),
    }
}

fn fetch(settings: &Settings) -> Result<PathBuf, Error> {
    Request { id: ID, revision: "main", settings }.folder()
}

fn cache() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Names of the files in a folder, sorted.
fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Message and advice of a download that fails.
fn refused(contents: Contents, adjust: impl FnOnce(&mut Settings)) -> String {
    let (hub, cache) = (MockHub::serve(contents), cache());
    let mut settings = settings(&hub.endpoint, &cache);
    adjust(&mut settings);
    let error = fetch(&settings).unwrap_err();
    assert!(matches!(error, Error::Download { .. }), "{error:?}");
    error.to_string().replace(&hub.endpoint, "HUB").replace(&cache.path().display().to_string(), "CACHE")
}

fn refused_with(status: u16, code: &'static str, message: &'static str) -> String {
    refused(Contents { refusal: Some((status, code, message)), ..single() }, |_| ())
}

#[test]
fn only_the_needed_files_are_fetched_into_the_usual_layout() {
    let (hub, cache) = (MockHub::serve(single()), cache());
    let folder = fetch(&settings(&hub.endpoint, &cache)).unwrap();
    assert_eq!(folder, cache.path().join("models--jetmoe--jetmoe-mini/snapshots").join(COMMIT));
    assert_eq!(listing(&folder), [names::CONFIG, names::WEIGHTS, names::TOKENIZER]);
    assert_eq!(std::fs::read(folder.join(names::WEIGHTS)).unwrap(), b"contents of model.safetensors");
    let reference = cache.path().join("models--jetmoe--jetmoe-mini/refs/main");
    assert_eq!(std::fs::read_to_string(reference).unwrap(), COMMIT);
}

#[test]
fn the_index_and_exactly_its_shards_are_fetched() {
    let (hub, cache) = (MockHub::serve(sharded()), cache());
    let folder = fetch(&settings(&hub.endpoint, &cache)).unwrap();
    let mut expected: Vec<_> = sharded().files.into_keys().collect();
    expected.retain(|name| name != "model-00003-of-00002.safetensors");
    assert_eq!(listing(&folder), expected);
    assert_eq!(hub.downloads(), expected, "each once");
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again() {
    let (hub, cache) = (MockHub::serve(sharded()), cache());
    let folder = fetch(&settings(&hub.endpoint, &cache)).unwrap();
    std::fs::remove_file(std::fs::canonicalize(folder.join(SHARDS[1])).unwrap()).unwrap();
    let before = hub.downloads().len();
    assert_eq!(fetch(&settings(&hub.endpoint, &cache)).unwrap(), folder);
    assert_eq!(hub.downloads().len(), before + 1, "the shard that was lost");
    assert!(folder.join(SHARDS[1]).exists());
}

#[test]
fn offline_the_cache_is_used_and_the_hub_not_asked() {
    let (hub, cache) = (MockHub::serve(sharded()), cache());
    let online = settings(&hub.endpoint, &cache);
    let folder = fetch(&online).unwrap();
    let asked = hub.requests().len();
    let offline = Settings { offline: true, ..online };
    assert_eq!(fetch(&offline).unwrap(), folder);
    let by_commit = Request { id: ID, revision: COMMIT, settings: &offline };
    assert_eq!(by_commit.folder().unwrap(), folder);
    assert_eq!(hub.requests().len(), asked);
}

#[test]
fn without_a_network_a_complete_copy_in_the_cache_will_do() {
    let (hub, cache) = (MockHub::serve(sharded()), cache());
    let settings = settings(&hub.endpoint, &cache);
    let folder = fetch(&settings).unwrap();
    drop(hub);
    assert_eq!(fetch(&settings).unwrap(), folder);
    std::fs::remove_file(folder.join(SHARDS[0])).unwrap();
    assert!(fetch(&settings).unwrap_err().to_string().contains("cannot reach"));
}

#[test]
fn offline_without_a_copy_says_what_is_missing() {
    let error = refused(single(), |settings| settings.offline = true);
    assert_eq!(
        error,
        "cannot download jetmoe/jetmoe-mini from the hub: HF_HUB_OFFLINE is set, and the cache has no complete copy: \
         cannot read CACHE/models--jetmoe--jetmoe-mini/refs/main: No such file or directory (os error 2)\n  \
         unset HF_HUB_OFFLINE to download it, set HF_HUB_CACHE to the cache that holds it, or give a folder"
    );
}

#[test]
fn offline_with_a_shard_missing_names_the_shard() {
    let (hub, cache) = (MockHub::serve(sharded()), cache());
    let online = settings(&hub.endpoint, &cache);
    let folder = fetch(&online).unwrap();
    std::fs::remove_file(folder.join(SHARDS[1])).unwrap();
    let error = fetch(&Settings { offline: true, ..online }).unwrap_err().to_string();
    assert!(error.contains(&format!("cannot read {}: ", folder.join(SHARDS[1]).display())), "{error}");
}

#[test]
fn a_revision_is_a_branch_a_tag_or_a_commit() {
    let contents = Contents { revisions: vec!["v1.0", "refs/pr/3"], ..single() };
    let (hub, cache) = (MockHub::serve(contents), cache());
    let settings = settings(&hub.endpoint, &cache);
    for revision in ["v1.0", "refs/pr/3", COMMIT] {
        let folder = Request { id: ID, revision, settings: &settings }.folder().unwrap();
        assert!(folder.ends_with(COMMIT));
    }
    let references = cache.path().join("models--jetmoe--jetmoe-mini/refs");
    assert_eq!(listing(&references), ["refs", "v1.0"], "a commit needs none");
    assert_eq!(std::fs::read_to_string(references.join("refs/pr/3")).unwrap(), COMMIT);
}

#[test]
fn a_revision_may_not_lead_out_of_the_cache() {
    let (hub, cache) = (MockHub::serve(single()), cache());
    let settings = settings(&hub.endpoint, &cache);
    for revision in ["", "..", "../../etc", "/etc", "a//b", "a/.", "a\\b"] {
        let error = Request { id: ID, revision, settings: &settings }.folder().unwrap_err().to_string();
        assert!(
            error.contains(&format!("{revision:?} is not a branch, tag or commit\n  check the revision")),
            "{error}"
        );
    }
    assert!(hub.requests().is_empty());
}

#[test]
fn the_token_is_sent_with_every_request() {
    let contents = Contents { token: Some("hf_secret"), ..sharded() };
    let (hub, cache) = (MockHub::serve(contents), cache());
    let settings = Settings { token: Some("hf_secret".to_owned()), ..settings(&hub.endpoint, &cache) };
    assert!(fetch(&settings).is_ok());
    assert!(hub.requests().len() > SHARDS.len());
}

#[test]
fn a_wrong_token_is_told_from_a_missing_one() {
    let wrong = refused(Contents { token: Some("hf_secret"), ..single() }, |settings| {
        settings.token = Some("hf_wrong".to_owned());
    });
    assert_eq!(
        wrong,
        "cannot download jetmoe/jetmoe-mini from the hub: the hub does not accept the token in HF_TOKEN for it (Invalid \
         username or password.)\n  check the id, or set HF_TOKEN to a valid token of an account that may read it \
         (https://huggingface.co/settings/tokens)"
    );
    assert_eq!(
        refused_with(401, "RepoNotFound", "Repository not found"),
        "cannot download jetmoe/jetmoe-mini from the hub: there is no such public model (Repository not found)\n  \
         check the id; if the model is private or gated, set HF_TOKEN (https://huggingface.co/settings/tokens)"
    );
}

#[test]
fn a_gated_model_asks_for_its_terms_and_a_token() {
    let expected = "cannot download jetmoe/jetmoe-mini from the hub: access to it is restricted (Access to model is \
                    restricted)\n  accept its terms at HUB/jetmoe/jetmoe-mini, then set HF_TOKEN to a token of that \
                    account (https://huggingface.co/settings/tokens)";
    assert_eq!(refused_with(401, "GatedRepo", "Access to model is restricted"), expected);
    assert_eq!(refused_with(403, "", "Access to model is restricted"), expected);
}

#[test]
fn a_missing_model_and_a_missing_revision_are_told_apart() {
    assert_eq!(
        refused_with(404, "RepoNotFound", ""),
        "cannot download jetmoe/jetmoe-mini from the hub: there is no such model\n  \
         check the id; models are listed at HUB/models"
    );
    assert_eq!(
        refused_with(404, "RevisionNotFound", ""),
        "cannot download jetmoe/jetmoe-mini from the hub: it has no revision \"main\"\n  \
         check the revision; its branches and tags are listed at HUB/jetmoe/jetmoe-mini/tree/main"
    );
    assert!(refused_with(404, "", "").contains("there is no such model, or it has no revision \"main\""));
}

#[test]
fn a_hub_that_cannot_be_reached_says_what_to_do_instead() {
    let cache = cache();
    // a port that was free a moment ago
    let endpoint = MockHub::serve(single()).endpoint.clone();
    let error = fetch(&settings(&endpoint, &cache)).unwrap_err().to_string();
    let expected = format!(
        "cannot download jetmoe/jetmoe-mini from the hub: cannot reach {endpoint}: Connection refused"
    );
    assert!(error.starts_with(&expected), "{error}");
    for advice in ["HTTPS_PROXY", "`hf download jetmoe/jetmoe-mini`", "give the folder", "HF_HUB_OFFLINE=1"] {
        assert!(error.contains(advice), "{advice} in {error}");
    }
}

#[test]
fn a_hub_out_of_order_or_out_of_patience_is_told_as_such() {
    assert!(refused_with(503, "", "").contains("HUB failed: HTTP 503\n  try again later"));
    assert!(refused_with(429, "", "").contains("the hub limits the rate of requests\n  wait a few minutes"));
}

#[test]
fn an_endpoint_that_is_no_hub_is_named() {
    let not_json = refused_with(200, "", "");
    assert!(
        not_json.contains("HUB does not respond like a hub: ") && not_json.contains("HF_ENDPOINT"),
        "{not_json}"
    );
    let no_url = refused(single(), |settings| settings.endpoint = "nowhere".to_owned());
    assert!(
        no_url.contains("\"nowhere\" is not a URL: ") && no_url.contains("correct HF_ENDPOINT"),
        "{no_url}"
    );
}

#[test]
fn an_error_page_does_not_stay_in_the_cache_as_the_file() {
    let contents = Contents { fault: Some((SHARDS[1], Fault::Refused((403, "", "")))), ..sharded() };
    let (broken, cache) = (MockHub::serve(contents), cache());
    let error = fetch(&settings(&broken.endpoint, &cache)).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot download jetmoe/jetmoe-mini from the hub: model-00002-of-00002.safetensors arrived with 13 bytes instead \
         of 44\n  it was removed; download again; complete files are kept"
    );
    let offline = Settings { offline: true, ..settings(&broken.endpoint, &cache) };
    assert!(fetch(&offline).is_err(), "no revision points to the incomplete folder");

    let whole = MockHub::serve(sharded());
    assert!(fetch(&settings(&whole.endpoint, &cache)).is_ok());
    assert_eq!(whole.downloads(), [SHARDS[1]]);
}

#[test]
fn a_repository_of_pickles_says_how_to_convert_them() {
    let files = files(&[names::CONFIG, "pytorch_model.bin"]);
    let error = refused(Contents { files, ..Contents::default() }, |_| ());
    assert!(error.contains("its weights are pickles only (pytorch_model.bin)"), "{error}");
    assert!(
        error.contains("AutoModelForCausalLM.from_pretrained(\"jetmoe/jetmoe-mini\").save_pretrained"),
        "{error}"
    );
}

#[test]
fn a_repository_without_weights_or_configuration_is_no_model() {
    let without = |name: &str| {
        let mut contents = single();
        contents.files.remove("pytorch_model.bin");
        contents.files.remove(name);
        refused(contents, |_| ())
    };
    assert!(
        without(names::WEIGHTS).contains("it has neither model.safetensors nor model.safetensors.index.json")
    );
    assert!(without(names::CONFIG).contains("it has no config.json, so it is not a transformers model"));
}

#[test]
fn an_index_of_files_that_the_repository_lacks_is_refused() {
    let mut contents = sharded();
    contents.files.remove(SHARDS[0]);
    let error = refused(contents, |_| ());
    assert!(
        error.contains("model.safetensors.index.json names model-00001-of-00002.safetensors, which"),
        "{error}"
    );
}

#[test]
fn the_environment_is_read_by_the_names_of_the_other_tools() {
    let read = |options: &HubOptions, variables: &[(&str, &str)]| {
        let find =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::new(options, &find)
    };
    let cache = |variables: &[(&str, &str)]| read(&HubOptions::default(), variables).cache_dir;
    assert_eq!(cache(&[("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b")]), Path::new("/a"));
    assert_eq!(cache(&[("HF_HOME", "/b"), ("XDG_CACHE_HOME", "/c")]), Path::new("/b/hub"));
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/c"), ("HF_HOME", "")]), Path::new("/c/huggingface/hub"));
    assert!(cache(&[]).ends_with(".cache/huggingface/hub"));
    let chosen = HubOptions { cache_dir: Some("/d".into()), ..HubOptions::default() };
    assert_eq!(read(&chosen, &[("HF_HUB_CACHE", "/a")]).cache_dir, Path::new("/d"));

    let plain = read(&HubOptions::default(), &[]);
    assert_eq!(
        (plain.endpoint.as_str(), plain.token, plain.offline),
        ("https://huggingface.co", None, false)
    );
    let set = read(&HubOptions::default(), &[("HF_ENDPOINT", "https://mirror/"), ("HF_TOKEN", " hf_x\n")]);
    assert_eq!((set.endpoint.as_str(), set.token.as_deref()), ("https://mirror", Some("hf_x")));

    for (value, offline) in
        [("1", true), ("ON", true), ("yes", true), ("True", true), ("0", false), ("", false)]
    {
        assert_eq!(read(&HubOptions::default(), &[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
    }
    assert!(read(&HubOptions::default(), &[("TRANSFORMERS_OFFLINE", "1")]).offline);
}

/// Keeps every report.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Report>>);

/// Bytes done, bytes in all, files in progress, and whether it is the end.
type Report = (u64, u64, Vec<String>, bool);

impl Recorder {
    fn last(&self) -> Report {
        self.0.lock().unwrap().last().unwrap().clone()
    }
}

impl DownloadObserver for Recorder {
    fn on_progress(&self, progress: &DownloadProgress<'_>) {
        let files = progress.files.iter().map(ToString::to_string).collect();
        let report = (progress.bytes_done, progress.bytes_total, files, progress.is_complete);
        self.0.lock().unwrap().push(report);
    }
}

#[test]
fn progress_counts_bytes_and_names_the_files_in_progress() {
    let file = |bytes, is_xet| RepoFile { bytes, is_xet };
    let files = BTreeMap::from([
        ("config.json".to_owned(), file(10, false)),
        (SHARDS[0].to_owned(), file(1000, true)),
        (SHARDS[1].to_owned(), file(2000, true)),
    ]);
    let recorder = Arc::new(Recorder::default());
    let tracker = ProgressTracker::new(recorder.clone(), files);
    let names = |files: &[&str]| files.iter().map(ToString::to_string).collect::<Vec<_>>();
    let step = |filename: &str, bytes_completed, status| {
        let files =
            vec![FileProgress { filename: filename.to_owned(), bytes_completed, total_bytes: 0, status }];
        tracker.on_progress(&DownloadEvent::Progress { files }.into());
        recorder.last()
    };
    let batch = |bytes_completed| {
        let event =
            DownloadEvent::AggregateProgress { bytes_completed, total_bytes: 3000, bytes_per_sec: None };
        tracker.on_progress(&event.into());
        recorder.last()
    };
    let all = names(&["config.json", SHARDS[0], SHARDS[1]]);
    assert_eq!(step("config.json", 4, FileStatus::InProgress), (4, 3010, all, false));
    assert_eq!(step("config.json", 0, FileStatus::Complete), (10, 3010, names(&SHARDS), false));
    assert_eq!(batch(1500).0, 1510);
    let counted_in_the_batch = (1510, 3010, names(&SHARDS[1..]), false);
    assert_eq!(step(SHARDS[0], 1000, FileStatus::Complete), counted_in_the_batch);
    assert_eq!(batch(3000).0, 3010);
    assert_eq!(step("unknown", 99, FileStatus::InProgress).0, 3010);
    tracker.on_progress(&DownloadEvent::Complete.into());
    assert!(recorder.last().3);
}

#[test]
fn an_observed_download_is_the_same_download_and_ends_with_every_byte() {
    let (hub, cache) = (MockHub::serve(sharded()), cache());
    let recorder = Arc::new(Recorder::default());
    let settings = Settings { observer: Some(recorder.clone()), ..settings(&hub.endpoint, &cache) };
    assert!(fetch(&settings).is_ok());
    let (bytes_done, bytes_total, files, is_complete) = recorder.last();
    assert_eq!((bytes_done, files.len(), is_complete), (bytes_total, 0, true));
}
