//! Transfers of files: with Xet and without, redirected, interrupted and refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jetmoe_checkpoint::names;
use jetmoe_testing::files;
use jetmoe_testing::hub::{COMMIT, Contents, Fault, LATER_COMMIT, MockHub};
use tempfile::TempDir;

use super::super::settings::Settings;
use super::{Recorder, SHARDS, cache, fetch, listing, refused, settings, sharded};
use crate::HubOptions;

const TEMPLATE: &str = "additional_chat_templates/rag.jinja";

/// A sharded checkpoint that the hub offers by Xet, with a file in a folder.
fn xet() -> Contents {
    let mut contents = Contents { offers_xet: true, ..sharded() };
    contents.files.insert(TEMPLATE.to_owned(), b"{{ messages }}".to_vec());
    contents
}

/// The files of [`xet`] that a model needs.
fn needed() -> Vec<String> {
    xet().files.into_keys().filter(|name| name != "model-00003-of-00002.safetensors").collect()
}

fn without_xet(endpoint: &str, cache: &TempDir) -> Settings {
    Settings { disable_xet: true, ..settings(endpoint, cache) }
}

/// Message and advice of a download without Xet that fails.
fn refused_without_xet(contents: Contents) -> String {
    refused(contents, |settings| settings.disable_xet = true)
}

fn faulty(fault: Fault) -> Contents {
    Contents { fault: Some((SHARDS[1], fault)), ..xet() }
}

fn assert_whole(folder: &Path) {
    let contents = xet();
    for name in needed() {
        assert_eq!(std::fs::read(folder.join(&name)).unwrap(), contents.files[&name], "{name}");
    }
}

/// Every path in a cache, with the targets of links.
fn tree(cache: &TempDir) -> Vec<(String, Option<PathBuf>)> {
    let paths = files::list(cache.path()).into_iter();
    paths.map(|path| (path.clone(), std::fs::read_link(cache.path().join(path)).ok())).collect()
}

#[test]
fn xet_that_the_hub_offers_but_does_not_serve_is_named() {
    let (hub, cache) = (MockHub::serve(xet()), cache());
    let error = fetch(&settings(&hub.endpoint, &cache)).unwrap_err().to_string();
    assert_eq!(
        error.replace(&hub.endpoint, "HUB"),
        "cannot download jetmoe/jetmoe-mini from the hub: HUB does not serve files in Xet storage: HTTP 404\n  \
         try again later, or download without Xet: set HF_HUB_DISABLE_XET=1"
    );
    assert!(hub.requests().iter().any(|request| request.contains("xet")));
}

#[test]
fn without_xet_files_are_downloaded_by_http() {
    let (hub, cache) = (MockHub::serve(xet()), cache());
    let variables = [("HF_ENDPOINT", hub.endpoint.as_str()), ("HF_HUB_DISABLE_XET", "1")];
    let find =
        |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let options = HubOptions { cache_dir: Some(cache.path().to_owned()), ..HubOptions::default() };
    let settings = Settings { token_file: None, ..Settings::new(&options, &find) };

    let folder = fetch(&settings).unwrap();
    assert_eq!(folder, cache.path().join("models--jetmoe--jetmoe-mini/snapshots").join(COMMIT));
    assert_whole(&folder);
    assert_eq!(hub.downloads(), needed(), "each once");
    assert!(!hub.requests().iter().any(|request| request.contains("xet")), "{:?}", hub.requests());

    let asked = hub.requests().len();
    assert_eq!(fetch(&Settings { offline: true, ..settings }).unwrap(), folder);
    assert_eq!(hub.requests().len(), asked);
}

/// Other tools read the cache, so it is as hf-hub writes it.
#[test]
fn without_xet_the_cache_is_the_same() {
    let storage = MockHub::serve(Contents { offers_xet: false, ..xet() });
    for redirected in [None, Some(storage.endpoint.clone())] {
        let hub = MockHub::serve(Contents { offers_xet: false, storage: redirected, ..xet() });
        let (expected, found) = (cache(), cache());
        fetch(&settings(&hub.endpoint, &expected)).unwrap();
        fetch(&without_xet(&hub.endpoint, &found)).unwrap();
        assert_eq!(tree(&found), tree(&expected));
    }
}

#[test]
fn content_in_the_cache_is_linked_again() {
    let (hub, cache) = (MockHub::serve(xet()), cache());
    let settings = without_xet(&hub.endpoint, &cache);
    let folder = fetch(&settings).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let blobs = cache.path().join("models--jetmoe--jetmoe-mini/blobs");
    let before = listing(&blobs);
    assert_eq!(fetch(&settings).unwrap(), folder);
    assert_whole(&folder);
    assert_eq!(listing(&blobs), before);
}

#[test]
fn a_branch_that_moved_on_gets_a_snapshot_of_its_own() {
    let cache = cache();
    let before = MockHub::serve(xet());
    let folder = fetch(&without_xet(&before.endpoint, &cache)).unwrap();
    let later = MockHub::serve(Contents { later_files: xet().files, ..xet() });
    let later_folder = fetch(&without_xet(&later.endpoint, &cache)).unwrap();
    assert!(folder.ends_with(COMMIT) && later_folder.ends_with(LATER_COMMIT));
    assert_whole(&folder);
    assert_whole(&later_folder);
}

#[test]
fn the_token_is_not_sent_to_a_server_that_the_hub_redirects_to() {
    let storage = MockHub::serve(xet());
    let contents = Contents { token: Some("hf_secret"), storage: Some(storage.endpoint.clone()), ..xet() };
    let (hub, cache) = (MockHub::serve(contents), cache());
    let settings = Settings { token: Some("hf_secret".to_owned()), ..without_xet(&hub.endpoint, &cache) };
    assert_whole(&fetch(&settings).unwrap());
    assert_eq!(storage.downloads(), needed());
    assert_eq!(storage.requests_with_token(), Vec::<String>::new());
    assert_eq!(hub.requests_with_token(), hub.requests());
}

#[test]
fn a_lost_connection_is_continued_where_it_ended() {
    let (hub, cache) = (MockHub::serve(faulty(Fault::Interrupted)), cache());
    assert_whole(&fetch(&without_xet(&hub.endpoint, &cache)).unwrap());
    let downloads = hub.downloads();
    assert_eq!(downloads.iter().filter(|name| *name == SHARDS[1]).count(), 2);
    assert_eq!(downloads.len(), needed().len() + 1);
}

#[test]
fn an_interrupted_download_is_no_response_of_something_else() {
    let expected = ": the download was interrupted: ";
    let advice = "\n  try again; complete files are not downloaded again";
    let with_xet = refused(Contents { offers_xet: false, ..faulty(Fault::Truncated) }, |_| ());
    for error in [with_xet, refused_without_xet(faulty(Fault::Truncated))] {
        assert!(error.contains(expected) && error.ends_with(advice), "{error}");
    }
}

#[test]
fn nothing_of_an_interrupted_file_is_left() {
    let (broken, cache) = (MockHub::serve(faulty(Fault::Truncated)), cache());
    let settings = without_xet(&broken.endpoint, &cache);
    fetch(&settings).unwrap_err();
    let blobs_and_names = tree(&cache).into_iter().map(|(path, _)| path);
    let left: Vec<_> =
        blobs_and_names.filter(|path| path.contains(SHARDS[1]) && !path.starts_with(".locks")).collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(
        fetch(&Settings { offline: true, ..settings }).is_err(),
        "no revision names the incomplete folder"
    );

    let whole = MockHub::serve(xet());
    assert_whole(&fetch(&without_xet(&whole.endpoint, &cache)).unwrap());
    assert!(whole.downloads().contains(&SHARDS[1].to_owned()));
    assert!(!whole.downloads().contains(&SHARDS[0].to_owned()), "complete files are kept");
}

#[test]
fn an_error_response_is_explained_and_not_stored() {
    let message_of = |response| refused_without_xet(faulty(Fault::Refused(response)));
    let restricted = message_of((403, "GatedRepo", "Access to model is restricted"));
    assert!(
        restricted.contains("access to it is restricted (Access to model is restricted)\n  accept its terms"),
        "{restricted}"
    );
    let missing = message_of((404, "EntryNotFound", ""));
    assert!(missing.contains(&format!("the hub lists {} but does not serve it", SHARDS[1])), "{missing}");
    let failed = message_of((500, "", ""));
    assert!(failed.contains("HUB failed: HTTP 500\n  try again later"), "{failed}");
}

#[test]
fn a_server_that_the_hub_redirects_to_is_named() {
    let storage = MockHub::serve(Contents { refusal: Some((403, "", "")), ..Contents::default() });
    let contents = || Contents { storage: Some(storage.endpoint.clone()), ..xet() };
    let forbidden = refused_without_xet(contents());
    let url = format!("{}/jetmoe/jetmoe-mini/resolve/{COMMIT}/", storage.endpoint);
    assert!(
        forbidden.contains(&url) && forbidden.contains(" responded with HTTP 403\n  try again later"),
        "{forbidden}"
    );
    let contents = contents();
    let endpoint = storage.endpoint.clone();
    drop(storage);
    let unreachable = refused_without_xet(contents);
    assert!(unreachable.contains(&format!("cannot reach {endpoint}: ")), "{unreachable}");
}

#[test]
fn without_xet_progress_counts_every_byte() {
    let (hub, cache) = (MockHub::serve(xet()), cache());
    let recorder = Arc::new(Recorder::default());
    let settings = Settings { observer: Some(recorder.clone()), ..without_xet(&hub.endpoint, &cache) };
    fetch(&settings).unwrap();
    let (bytes_done, bytes_total, files, is_complete) = recorder.last();
    assert_eq!((bytes_done, files.len(), is_complete), (bytes_total, 0, true));
    let reports = recorder.0.lock().unwrap();
    let shard = xet().files[SHARDS[1]].len() as u64;
    let in_progress = |(_, _, files, _): &&super::Report| files[..] == [SHARDS[1].to_owned()];
    let (first, last) =
        (reports.iter().find(in_progress).unwrap().0, reports.iter().rev().find(in_progress).unwrap().0);
    assert_eq!(last - first, shard, "all of its bytes are reported while it is in progress");
}

#[test]
fn without_xet_a_download_can_be_called_in_an_asynchronous_runtime() {
    let (hub, cache) = (MockHub::serve(xet()), cache());
    let settings = without_xet(&hub.endpoint, &cache);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_whole(&runtime.block_on(async { fetch(&settings) }).unwrap());
}

#[test]
fn xet_and_the_stored_token_are_set_by_the_names_of_the_other_tools() {
    let read = |variables: &[(&str, &str)]| {
        let find =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::new(&HubOptions::default(), &find)
    };
    // `ENV_VARS_TRUE_VALUES` of huggingface_hub, in any case
    for (value, disabled) in
        [("1", true), ("ON", true), ("yes", true), ("True", true), ("0", false), ("2", false)]
    {
        assert_eq!(read(&[("HF_HUB_DISABLE_XET", value)]).disable_xet, disabled, "{value}");
    }
    assert!(!read(&[]).disable_xet);

    let folder = cache();
    let home = folder.path().to_str().unwrap();
    let other = folder.path().join("other");
    std::fs::write(folder.path().join("token"), "hf_stored\n").unwrap();
    std::fs::write(&other, "hf_other").unwrap();
    let token = |variable: (&str, &str)| read(&[("HF_HOME", home), variable]).bearer_token();
    assert_eq!(token(("", "")).as_deref(), Some("hf_stored"));
    assert_eq!(token(("HF_TOKEN", "hf_set")).as_deref(), Some("hf_set"));
    assert_eq!(token(("HF_TOKEN_PATH", other.to_str().unwrap())).as_deref(), Some("hf_other"));
    assert_eq!(token(("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")), None);
    std::fs::remove_file(folder.path().join("token")).unwrap();
    assert_eq!(token(("", "")), None);
}

#[test]
fn a_complete_cache_needs_no_download() {
    let (hub, cache) = (MockHub::serve(xet()), cache());
    let settings = without_xet(&hub.endpoint, &cache);
    let folder = fetch(&settings).unwrap();
    let downloads = hub.downloads().len();
    assert_eq!(fetch(&settings).unwrap(), folder);
    assert_eq!(hub.downloads().len(), downloads);
    std::fs::remove_file(folder.join(names::WEIGHTS_INDEX)).unwrap();
    assert_eq!(fetch(&settings).unwrap(), folder);
    assert_whole(&folder);
}
