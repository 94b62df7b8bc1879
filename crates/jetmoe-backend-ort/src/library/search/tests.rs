//! The order of the search, and what each kind of path must hold.

use std::fs;

use super::*;

/// SearchPaths of an empty machine under a temporary folder.
fn places(root: &Path) -> SearchPaths {
    SearchPaths {
        variable: None,
        cache: Some(root.join("cache")),
        system: vec![root.join("system")],
        environments: vec![root.join("environment")],
        interpreter: || Err("has no package onnxruntime".to_owned()),
    }
}

/// The library's file name on this system, with a version or without.
fn file_name(version: &str) -> String {
    let (stem, extension) = FILE_NAMES;
    let dot = if version.is_empty() { "" } else { "." };
    format!("{stem}{dot}{version}{extension}")
}

fn put(folder: &Path, name: &str) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, "").unwrap();
    path
}

fn found(places: &SearchPaths, explicit: Option<&Path>) -> Vec<(LibraryOrigin, PathBuf)> {
    found_with(places, explicit, None)
}

fn found_with(
    places: &SearchPaths,
    explicit: Option<&Path>,
    provider: Option<ExecutionProvider>,
) -> Vec<(LibraryOrigin, PathBuf)> {
    places
        .candidates(explicit, provider)
        .filter(|candidate| candidate.status == LibraryStatus::Found)
        .map(|candidate| (candidate.origin, candidate.path))
        .collect()
}

#[test]
fn an_empty_machine_names_every_place_and_why_it_has_nothing() {
    let root = tempfile::tempdir().unwrap();
    let origins: Vec<_> = places(root.path())
        .candidates(None, None)
        .map(|candidate| {
            assert!(matches!(candidate.status, LibraryStatus::Missing(_)), "{candidate:?}");
            candidate.origin
        })
        .collect();
    let python = LibraryOrigin::Python;
    assert_eq!(origins, [LibraryOrigin::Cache, LibraryOrigin::System, python, python]);
}

#[test]
fn places_are_tried_from_the_most_to_the_least_explicit() {
    let root = tempfile::tempdir().unwrap();
    let given = put(root.path(), "given");
    let variable = put(root.path(), "variable");
    let cached = put(&root.path().join("cache/1.32.0"), &file_name(""));
    let system = put(&root.path().join("system"), &file_name(""));
    let environment = root.path().join("environment");
    let site_packages = if cfg!(windows) { "Lib/site-packages" } else { "lib/python3.11/site-packages" };
    let python = put(&environment.join(site_packages).join("onnxruntime/capi"), &file_name(""));
    let places = SearchPaths { variable: Some(variable.clone()), ..places(root.path()) };
    assert_eq!(
        found(&places, Some(&given)),
        [
            (LibraryOrigin::Explicit, given.clone()),
            (LibraryOrigin::Variable, variable),
            (LibraryOrigin::Cache, cached),
            (LibraryOrigin::System, system),
            (LibraryOrigin::Python, python),
        ]
    );
}

#[test]
fn the_newest_version_of_the_cache_wins() {
    let root = tempfile::tempdir().unwrap();
    let cache = root.path().join("cache");
    put(&cache.join("1.9.0"), &file_name(""));
    let newest = put(&cache.join("1.32.0"), &file_name(""));
    put(&cache.join("unfinished"), &file_name(""));
    fs::create_dir_all(cache.join("1.40.0")).unwrap();
    assert_eq!(found(&places(root.path()), None), [(LibraryOrigin::Cache, newest)]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_provider_takes_the_library_that_lies_beside_it_unless_one_is_named() {
    let root = tempfile::tempdir().unwrap();
    let cache = root.path().join("cache");
    let plain = put(&cache.join("1.40.0"), &file_name(""));
    let fetched = put(&cache.join("1.24.1-openvino"), &file_name(""));
    put(&cache.join("1.24.1-openvino"), "libonnxruntime_providers_openvino.so");
    put(&cache.join("1.30.0-gpu"), &file_name(""));
    put(&root.path().join("system"), &file_name(""));
    let given = put(root.path(), "given");
    let places = places(root.path());
    let openvino = Some(ExecutionProvider::OpenVino);
    assert_eq!(found_with(&places, None, openvino), [(LibraryOrigin::Cache, fetched)]);
    assert_eq!(found_with(&places, Some(&given), openvino)[0], (LibraryOrigin::Explicit, given));
    // the library without the provider that its folder promises, and those that promise none
    assert_eq!(found_with(&places, None, Some(ExecutionProvider::Cuda)), []);
    let why = places.candidates(None, Some(ExecutionProvider::Cuda)).next().unwrap().status.to_string();
    assert_eq!(why, "no libonnxruntime_providers_cuda.so next to it");
    assert_eq!(found(&places, None)[0], (LibraryOrigin::Cache, plain));
}

#[test]
fn the_newest_version_of_a_folder_wins_and_other_files_do_not_count() {
    let root = tempfile::tempdir().unwrap();
    let system = root.path().join("system");
    put(&system, &file_name("1.9.0"));
    let newest = put(&system, &file_name("1.32.0"));
    put(&system, "libonnxruntime_providers_shared.so");
    put(&system, &file_name("1.33.0").replace("onnxruntime", "onnxruntime_providers"));
    fs::create_dir_all(system.join(file_name("1.40.0"))).unwrap();
    assert_eq!(found(&places(root.path()), None), [(LibraryOrigin::System, newest)]);
}

#[test]
#[cfg(unix)]
fn a_link_without_a_version_has_the_version_of_its_target() {
    let root = tempfile::tempdir().unwrap();
    let system = root.path().join("system");
    put(&system, &file_name("1.9.0"));
    let newest = put(&root.path().join("elsewhere"), &file_name("1.32.0"));
    let link = system.join(file_name(""));
    std::os::unix::fs::symlink(newest, &link).unwrap();
    assert_eq!(found(&places(root.path()), None), [(LibraryOrigin::System, link)]);
}

#[test]
fn a_named_file_that_is_missing_says_so() {
    let root = tempfile::tempdir().unwrap();
    let why = |path: &Path| named_file(path, LibraryOrigin::Explicit).status.to_string();
    assert_eq!(why(&root.path().join("nowhere.so")), "no such file");
    assert_eq!(why(root.path()), "it is a folder; name the library itself");
}

#[test]
fn python_answers_or_says_why_not() {
    match ask_python() {
        Ok(folder) => assert!(folder.is_absolute(), "{}", folder.display()),
        Err(why) => assert!(why.contains("has no package") || why.contains("asked"), "{why}"),
    }
}
