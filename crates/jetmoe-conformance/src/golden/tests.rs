use std::collections::BTreeMap;

use jetmoe_checkpoint::Checkpoint;
use jetmoe_testing::fixtures;
use safetensors::tensor::TensorView;

use super::*;
/// A golden file's tensors, which can be changed before they are written and read again.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read_changed(change: impl FnOnce(&mut Tensors)) -> Result<Expectation> {
    let fixture = fixtures::checkpoint("tiny");
    let bytes = std::fs::read(fixture.join("golden.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file
        .iter()
        .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())));
    let mut tensors: Tensors = tensors.collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    safetensors::serialize_to_file(views, None, &path).unwrap();
    read_golden(&path, Checkpoint::open(fixture).unwrap().config())
}

#[track_caller]
fn assert_refused(change: impl FnOnce(&mut Tensors), why: &str) {
    let error = read_changed(change).unwrap_err();
    assert!(matches!(error, Error::Golden { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(why) && text.contains("make_goldens.py"), "{text}");
}

#[test]
fn every_tensor_of_a_golden_file_is_expected_of_an_output() {
    let golden = read_changed(|_| ()).unwrap();
    assert_eq!(golden.batch.ids().dim(), (3, 14));
    let names: Vec<String> = golden.tensors.keys().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "logits",
            "last_hidden_state",
            "present.0.key",
            "present.1.key",
            "present.0.value",
            "present.1.value",
            "hidden_states.0",
            "hidden_states.1",
            "hidden_states.2",
            "attn_router_logits.0",
            "attn_router_logits.1",
            "mlp_router_logits.0",
            "mlp_router_logits.1",
        ]
    );
    assert_eq!(golden.tensors[&OutputName::MlpRouterLogits(1)].shape(), [3, 14, 8]);
    let (next, logits) = golden.next.unwrap();
    assert_eq!((next.len(), logits.shape()), (3, &[3, 1, 131][..]));
    // end tokens are 2; what follows them is padding
    for continuation in golden.greedy.unwrap() {
        let end = continuation.iter().position(|id| *id == 2);
        assert_eq!(continuation.len(), end.map_or(24, |end| end + 1));
    }
}

#[test]
fn a_file_without_continuation_or_next_step_expects_none() {
    let golden = read_changed(|tensors| {
        tensors.remove("generated");
        tensors.remove("next.input_ids");
    });
    let golden = golden.unwrap();
    assert!(golden.greedy.is_none() && golden.next.is_none());
}

#[test]
fn a_continuation_ends_with_the_end_token() {
    assert_eq!(until_end([5, 6, 2, 2, 2].into_iter(), &[2]), [5, 6, 2]);
    assert_eq!(until_end([5, 9, 2].into_iter(), &[2, 9]), [5, 9]);
    assert_eq!(until_end([5, 6].into_iter(), &[2]), [5, 6]);
    assert_eq!(until_end([5, 2].into_iter(), &[]), [5, 2]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let config = Checkpoint::open(fixtures::checkpoint("tiny")).unwrap();
    let error = read_golden(Path::new("/nowhere/golden.safetensors"), config.config()).unwrap_err();
    assert!(matches!(error, Error::Io { action: "read", .. }));
    assert!(error.to_string().contains("/nowhere/golden.safetensors"), "{error}");
}

#[test]
fn a_file_that_is_no_safetensors_file_is_refused() {
    let config = Checkpoint::open(fixtures::checkpoint("tiny")).unwrap();
    let error = read_golden(&fixtures::checkpoint("tiny").join("config.json"), config.config()).unwrap_err();
    assert!(matches!(error, Error::Golden { .. }), "{error:?}");
}

#[test]
fn a_missing_or_wrong_input_is_refused_by_name() {
    assert_refused(|tensors| drop(tensors.remove("input_ids")), "input_ids");
    assert_refused(|tensors| drop(tensors.remove("attention_mask")), "attention_mask");
    assert_refused(
        |tensors| {
            let logits = tensors["logits"].clone();
            tensors.insert("input_ids".to_owned(), logits);
        },
        "input_ids is F32 [3, 14, 131], expected an I64 matrix",
    );
    let shorter = |tensors: &mut Tensors| {
        let next = tensors["next.input_ids"].clone();
        tensors.insert("attention_mask".to_owned(), next);
    };
    assert_refused(shorter, "attention_mask");
}

#[test]
fn an_id_that_no_token_can_have_is_refused() {
    assert_refused(
        |tensors| tensors.get_mut("input_ids").unwrap().2[..8].copy_from_slice(&(-1_i64).to_le_bytes()),
        "-1 is no token id",
    );
}

#[test]
fn an_expected_tensor_of_another_type_or_size_is_refused_by_name() {
    let halves = |tensors: &mut Tensors| {
        tensors.insert("layer.0.output".to_owned(), (Dtype::F16, vec![2], vec![0; 4]));
    };
    assert_refused(halves, "layer.0.output holds F16, expected F32");
    let fewer = |tensors: &mut Tensors| {
        tensors.insert("layer.1.mlp_router_logits".to_owned(), (Dtype::F32, vec![2, 8], vec![0; 64]));
    };
    assert_refused(fewer, "layer.1.mlp_router_logits");
}

#[test]
fn a_file_that_expects_nothing_is_refused() {
    assert_refused(
        |tensors| tensors.retain(|name, _| name.starts_with("input") || name.starts_with("attention_mask")),
        "it holds no expected output",
    );
}
