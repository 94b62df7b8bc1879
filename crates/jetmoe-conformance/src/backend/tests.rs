use std::path::Path;

use super::*;

#[test]
fn a_name_reads_back_as_itself_and_any_other_is_refused() {
    for name in BackendName::built_in() {
        assert_eq!(name.to_string().parse::<BackendName>().unwrap(), name);
    }
    let unknown = "onnx".parse::<BackendName>().unwrap_err().to_string();
    let names: Vec<_> = BackendName::built_in().iter().map(BackendName::to_string).collect();
    assert_eq!(unknown, format!("unknown backend \"onnx\"; known: {}", names.join(", ")));
}

#[test]
fn the_reference_is_in_every_build() {
    assert!(BackendName::built_in().contains(&BackendName::REFERENCE));
}

#[test]
fn the_reference_without_a_checkpoint_says_where_the_artifact_came_from() {
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../jetmoe-rt/tests/fixtures/toy");
    let artifact = Artifact::open(toy).unwrap();
    let error = load(BackendName::REFERENCE, &artifact, None, &LoadOptions::default()).unwrap_err();
    let source = &artifact.manifest().checkpoint.source;
    assert!(matches!(&error, Error::NoCheckpoint { source_name } if source_name.as_ref() == Some(source)));
    assert!(error.to_string().contains(source), "{error}");
}
