//! Tensors of quantized weights that contradict the configuration or each other.

use jetmoe_checkpoint::{Checkpoint, Error, names};
use jetmoe_testing::{CheckpointDraft, DraftTensor};
use safetensors::Dtype;
use serde_json::json;

use crate::fixtures::tiny;

/// Module of the quantized projection in [`gptq`].
fn module() -> String {
    names::kv_projection(0).trim_end_matches(".weight").to_owned()
}

/// [`tiny`] with one projection `[16, 6]` as GPTQ stores it.
fn gptq() -> CheckpointDraft {
    let config = json!({ "quant_method": "gptq", "bits": 4, "group_size": 16 });
    let mut draft = tiny().with("quantization_config", config);
    draft.tensors.remove(&names::kv_projection(0));
    let parts: [(&str, Dtype, &[usize]); 4] = [
        ("qweight", Dtype::I32, &[1, 16]),
        ("qzeros", Dtype::I32, &[1, 2]),
        ("scales", Dtype::F32, &[1, 16]),
        ("g_idx", Dtype::I32, &[6]),
    ];
    for (part, dtype, shape) in parts {
        draft.tensors.insert(format!("{}.{part}", module()), DraftTensor::counting(dtype, shape));
    }
    draft.weight(&format!("{}.g_idx", module())).fill(0.0);
    draft
}

/// The tensor that is refused, and why.
fn refused(draft: &CheckpointDraft) -> (String, String) {
    match Checkpoint::open(draft.write().path()).unwrap_err() {
        Error::QuantizedTensor { tensor, problem, .. } => (tensor, problem),
        other => panic!("{other}"),
    }
}

#[test]
fn tensors_that_fit_are_read() {
    let folder = gptq().write();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let matrix = checkpoint.quantized_matrix(&names::kv_projection(0), None).unwrap().unwrap();
    assert_eq!((matrix.rows, matrix.columns, matrix.groups()), (16, 6, 1));
}

/// Memory for 2⁶⁰ codes is never requested, which would end the process.
#[test]
fn sizes_are_compared_before_memory_is_allocated() {
    let draft = gptq().with("hidden_size", json!(1_u32 << 30)).with("kv_channels", json!(1 << 28));
    let (tensor, problem) = refused(&draft);
    assert_eq!(tensor, format!("{}.qweight", module()));
    assert_eq!(problem, "has shape [1, 16], expected [134217728, 1073741824]");
}

#[test]
fn the_error_names_folder_tensor_and_problem() {
    let mut draft = gptq();
    draft.weight(&format!("{}.scales", module()))[3] = -1.0;
    let folder = draft.write();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    let expected = format!(
        "{}, {}.scales holds the scale -1, expected a positive number\n  \
         give the checkpoint that was quantized, and choose a precision for the export",
        folder.path().display(),
        module()
    );
    assert_eq!(error, expected);
}

#[test]
fn each_part_must_have_the_shape_that_the_others_imply() {
    let others: [(&str, Dtype, &[usize], &str); 4] = [
        ("qweight", Dtype::I32, &[2, 16], "[1, 16]"),
        ("qzeros", Dtype::I32, &[2, 2], "[1, 2]"),
        ("scales", Dtype::F32, &[16], "[1, 16]"),
        ("g_idx", Dtype::I32, &[7], "[6]"),
    ];
    for (part, dtype, shape, expected) in others {
        let name = format!("{}.{part}", module());
        let draft = gptq().store(&name, DraftTensor::counting(dtype, shape));
        let problem = format!("has shape {shape:?}, expected {expected}");
        assert_eq!(refused(&draft), (name.clone(), problem));
        let mut draft = gptq();
        draft.tensors.remove(&name);
        // without codes it is no quantized weight
        if part != "qweight" {
            assert_eq!(refused(&draft), (name, "is missing".to_owned()));
        }
    }
}
