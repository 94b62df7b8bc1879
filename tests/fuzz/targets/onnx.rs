//! Any graph is decoded or refused, and the check of a graph ends for any decoded one.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use jetmoe_artifact::{GraphRecord, Manifest};
use jetmoe_checkpoint::{ModelConfig, names};
use jetmoe_fuzz::{Choices, mutate_graph};
use jetmoe_fuzz_targets::copy_of;
use jetmoe_onnx::{Model, check_graph, decode, read};
use libfuzzer_sys::fuzz_target;

struct Target {
    path: PathBuf,
    config: ModelConfig,
    record: GraphRecord,
    model: Model,
}

impl Target {
    fn new(artifact: &str) -> Self {
        let folder = copy_of(artifact);
        let record = Manifest::read(&folder).unwrap().graphs.remove(0);
        let path = folder.join(&record.graph.path);
        let config = ModelConfig::read(&folder.join(names::CONFIG)).unwrap();
        let model = read(&path).unwrap();
        Target { path, config, record, model }
    }
}

static TARGETS: LazyLock<[Target; 4]> =
    LazyLock::new(|| ["f32", "q4-native", "q4-onnxruntime", "classifier-f32"].map(Target::new));

fuzz_target!(|input: &[u8]| {
    let [first, rest @ ..] = input else { return };
    let target = &TARGETS[usize::from(first % 4)];
    let bytes = if first & 4 == 0 {
        let (mut model, mut choices) = (target.model.clone(), Choices::of_bytes(rest));
        for _ in 0..8 {
            if !choices.is_exhausted() {
                mutate_graph(&mut model, &mut choices);
            }
        }
        model.to_bytes()
    } else {
        rest.to_vec()
    };
    if decode(&target.path, &bytes).is_ok() {
        let _ = check_graph(&target.path, &bytes, &target.config, &target.record);
    }
});
