//! A process holds one libonnxruntime. This is a test binary of its own, for what it opens it keeps.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![cfg(feature = "ort")]

use jetmoe_rt::{BackendError, LibraryStatus, OnnxRuntimeLibrary};

#[test]
fn the_first_library_stays_and_another_is_refused() {
    let first = OnnxRuntimeLibrary::find(None).unwrap();
    assert!(first.path().is_file());
    let providers = first.execution_providers().unwrap();
    assert!(providers.iter().any(|name| name == "CPUExecutionProvider"), "{providers:?}");

    let again = OnnxRuntimeLibrary::find(Some(first.path())).unwrap();
    assert_eq!(again, first);
    assert_eq!(OnnxRuntimeLibrary::find(None).unwrap(), first);

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("another.so");
    std::fs::copy(first.path(), &copy).unwrap();
    match OnnxRuntimeLibrary::find(Some(&copy)).unwrap_err() {
        BackendError::Library { path, source, .. } => {
            let message = source.to_string();
            assert_eq!(path, copy);
            assert!(message.contains(&first.path().display().to_string()), "{message}");
            assert!(message.contains("can hold only one"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_library_in_use_is_among_the_candidates() {
    let library = OnnxRuntimeLibrary::find(None).unwrap();
    let candidates = OnnxRuntimeLibrary::candidates(None);
    let found = candidates.iter().find(|candidate| candidate.path == library.path()).unwrap();
    assert_eq!((found.origin, &found.status), (library.origin(), &LibraryStatus::Found));
}
