//! Any `jetmoe.json` of an artifact is read or refused.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use jetmoe_artifact::{Artifact, Manifest, Profile, names};
use jetmoe_fuzz::mutate_json_text;
use jetmoe_fuzz_targets::{base_file, content, copy_of};
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<std::path::PathBuf> = LazyLock::new(|| copy_of("q4-native"));
static MANIFEST: LazyLock<Vec<u8>> = LazyLock::new(|| base_file("q4-native", names::MANIFEST));

fuzz_target!(|input: &[u8]| {
    let path = FOLDER.join(names::MANIFEST);
    fs::write(&path, content(input, &MANIFEST, mutate_json_text)).unwrap();
    let Ok(manifest) = Manifest::read(&FOLDER) else { return };
    for file in manifest.all_files() {
        assert!(
            !file.path.starts_with('/') && !file.path.split('/').any(|part| part == ".."),
            "{}",
            file.path
        );
    }
    for profile in Profile::ALL {
        manifest.graph(None, Some(*profile));
    }
    // what was read is written so that it is read again
    manifest.write(&FOLDER).unwrap();
    assert_eq!(Manifest::read(&FOLDER).unwrap().graphs.len(), manifest.graphs.len());
    if let Ok(artifact) = Artifact::open(&*FOLDER) {
        for graph in &artifact.manifest().graphs {
            artifact.signature(graph);
            let _ = artifact.generation_config(graph.task);
        }
    }
});
