//! Small checkpoints made for a test, and the external tensors of a written graph.

use std::path::Path;

use jetmoe_checkpoint::Checkpoint;
use jetmoe_onnx::Tensor;
use jetmoe_testing::{CheckpointDraft, DraftTensor};
use safetensors::Dtype;
use serde_json::{Value, json};

/// The sizes that matter to how matrices are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) experts: usize,
}

/// A checkpoint of one layer with tied embeddings, in a type and with sizes of choice. `value` gives each
/// weight by the tensor's name and number and the weight's place in it.
pub(crate) fn checkpoint(
    folder: &Path,
    dtype: Dtype,
    sizes: Sizes,
    value: impl Fn(&str, usize, usize) -> f32,
) -> Checkpoint {
    let Sizes { hidden, intermediate, experts } = sizes;
    let Value::Object(config) = json!({
        "model_type": "jetmoe", "vocab_size": 7, "hidden_size": hidden, "num_hidden_layers": 1,
        "num_key_value_heads": 1, "kv_channels": 2, "intermediate_size": intermediate,
        "num_local_experts": experts, "num_experts_per_tok": 1,
    }) else {
        unreachable!()
    };
    let layer = "model.layers.0";
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![7, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        (format!("{layer}.input_layernorm.weight"), vec![hidden]),
        (format!("{layer}.post_attention_layernorm.weight"), vec![hidden]),
        (format!("{layer}.self_attention.kv_proj.weight"), vec![4, hidden]),
    ];
    for (part, rows, columns) in [("self_attention.experts", 2, 2), ("mlp", 2 * intermediate, intermediate)] {
        shapes.extend([
            (format!("{layer}.{part}.router.layer.weight"), vec![experts, hidden]),
            (format!("{layer}.{part}.input_linear.weight"), vec![experts, rows, hidden]),
            (format!("{layer}.{part}.output_linear.weight"), vec![experts, hidden, columns]),
            (format!("{layer}.{part}.bias"), vec![hidden]),
        ]);
    }
    let tensors = shapes.into_iter().enumerate().map(|(number, (name, shape))| {
        let values = (0..shape.iter().product()).map(|index| value(&name, number, index)).collect();
        (name, DraftTensor { dtype, shape, values })
    });
    CheckpointDraft { config, tensors: tensors.collect() }.write_into(folder);
    Checkpoint::open(folder).unwrap()
}

/// What a tensor says about its place outside of the graph.
pub(crate) fn external(tensor: &Tensor, key: &str) -> String {
    let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
    entry.unwrap().value.clone().unwrap()
}

/// The bytes of a tensor in the data file.
pub(crate) fn bytes<'a>(tensor: &Tensor, data: &'a [u8]) -> &'a [u8] {
    let offset: usize = external(tensor, "offset").parse().unwrap();
    let length: usize = external(tensor, "length").parse().unwrap();
    &data[offset..offset + length]
}

/// The expected element at a position of a weight in the graph, read from the checkpoint.
/// `name` is the tensor's, with the number of an expert and `.T` where they apply.
pub(crate) fn expected(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let (stem, transposed) = match name.strip_suffix(".T") {
        Some(stem) => (stem, true),
        None => (name, false),
    };
    let (tensor, expert) = match checkpoint.tensors().get(stem) {
        Some(tensor) => (tensor, None),
        None => {
            let (tensor, expert) = stem.rsplit_once('.').unwrap();
            (checkpoint.tensors().get(tensor).unwrap(), Some(expert.parse::<usize>().unwrap()))
        }
    };
    let all = tensor.to_f32();
    let (shape, all) = match expert {
        None => (tensor.shape, &all[..]),
        Some(expert) => {
            let length: usize = tensor.shape[1..].iter().product();
            (&tensor.shape[1..], &all[expert * length..(expert + 1) * length])
        }
    };
    match (transposed, shape) {
        (false, _) => all.to_vec(),
        (true, [rows, columns]) => {
            (0..rows * columns).map(|place| all[place % rows * columns + place / rows]).collect()
        }
        (true, _) => unreachable!("only matrices are transposed"),
    }
}
