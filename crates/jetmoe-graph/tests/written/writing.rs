//! Writing: the bytes of the weights, their locations, and the state after a failed write.

use std::path::Path;

use jetmoe_artifact::Task;
use jetmoe_checkpoint::Checkpoint;
use jetmoe_graph::{Error, GraphOptions, Rounding, build, write};
use jetmoe_onnx::{DataLocation, Tensor, read};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::shared::{self, Sizes, bytes, expected, external};

/// A checkpoint of one layer whose every weight has its own value, in a type and with sizes of choice.
fn checkpoint(folder: &Path, dtype: Dtype, hidden: usize, intermediate: usize, experts: usize) -> Checkpoint {
    // all three types hold it exactly, and neighbours differ
    let value = |_: &str, tensor: usize, index: usize| ((tensor * 37 + index * 11) % 251) as f32 - 125.0;
    shared::checkpoint(folder, dtype, Sizes { hidden, intermediate, experts }, value)
}

/// The elements of a weight in the data file.
fn elements(tensor: &Tensor, data: &[u8]) -> Vec<f32> {
    let elements = bytes(tensor, data).chunks_exact(4);
    elements.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_weight_is_written_element_by_element(
        dtype in prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::BF16)],
        hidden in 1_usize..70,
        intermediate in 1_usize..40,
        experts in 1_usize..4,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = checkpoint(folder.path(), dtype, hidden, intermediate, experts);
        let graph = build(checkpoint.config(), &GraphOptions::for_task(Task::CausalLm)).unwrap();
        let (graph_path, data_path) = (folder.path().join("g.onnx"), folder.path().join("g.onnx_data"));
        let mut reported = 0;
        let written = write(&graph, &checkpoint, &Rounding::Search, &graph_path, &data_path, &mut |bytes| reported += bytes).unwrap();
        prop_assert_eq!(reported, graph.weight_bytes());

        let data = std::fs::read(&data_path).unwrap();
        prop_assert_eq!(data.len() as u64, written.data_size);
        prop_assert_eq!(jetmoe_checkpoint::Digest::of_bytes(&data), written.data_sha256);
        let model = read(&graph_path).unwrap();
        let weights: Vec<Tensor> = model.graph.unwrap().initializer.into_iter()
            .filter(|tensor| tensor.data_location == Some(DataLocation::External as i32)).collect();
        prop_assert!(!weights.is_empty());
        for weight in &weights {
            let name = weight.name.as_deref().unwrap();
            prop_assert_eq!(external(weight, "location"), "g.onnx_data");
            prop_assert_eq!(external(weight, "offset").parse::<u64>().unwrap() % 64, 0, "{}", name);
            prop_assert_eq!(elements(weight, &data), expected(&checkpoint, name), "{}", name);
        }
    }
}

/// A transposed matrix of more columns than one band holds.
#[test]
fn matrices_wider_than_a_band_are_transposed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(folder.path(), Dtype::BF16, 700, 420, 1);
    let graph = build(checkpoint.config(), &GraphOptions::for_task(Task::CausalLm)).unwrap();
    let (graph_path, data_path) = (folder.path().join("g.onnx"), folder.path().join("g.onnx_data"));
    write(&graph, &checkpoint, &Rounding::Search, &graph_path, &data_path, &mut |_| ()).unwrap();
    let data = std::fs::read(&data_path).unwrap();
    for weight in read(&graph_path).unwrap().graph.unwrap().initializer {
        if weight.data_location == Some(DataLocation::External as i32) {
            let name = weight.name.as_deref().unwrap();
            assert!(elements(&weight, &data) == expected(&checkpoint, name), "{name}");
            let length: u64 = external(&weight, "length").parse().unwrap();
            if length >= 1 << 20 {
                assert_eq!(external(&weight, "offset").parse::<u64>().unwrap() % 4096, 0, "{name}");
            }
        }
    }
}

#[test]
fn a_failed_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(folder.path(), Dtype::F32, 8, 4, 2);
    // a classification graph needs a head that this checkpoint does not have
    let graph = build(checkpoint.config(), &GraphOptions::for_task(Task::SequenceClassification)).unwrap();
    let output = folder.path().join("output");
    std::fs::create_dir(&output).unwrap();
    let error = write(
        &graph,
        &checkpoint,
        &Rounding::Search,
        &output.join("g.onnx"),
        &output.join("g.onnx_data"),
        &mut |_| (),
    )
    .unwrap_err();
    assert!(error.to_string().contains("score.weight is missing (expected [2, 8])"), "{error}");
    assert_eq!(std::fs::read_dir(&output).unwrap().count(), 0);
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(folder.path(), Dtype::F32, 8, 4, 2);
    let graph = build(checkpoint.config(), &GraphOptions::for_task(Task::CausalLm)).unwrap();
    let nowhere = folder.path().join("nowhere");
    let error = write(
        &graph,
        &checkpoint,
        &Rounding::Search,
        &nowhere.join("g.onnx"),
        &nowhere.join("g.onnx_data"),
        &mut |_| (),
    );
    assert!(matches!(error, Err(Error::Io { action: "create", path, .. }) if path.starts_with(&nowhere)));
}
