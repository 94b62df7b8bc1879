//! Checkpoints to test with: the trained model in the repository, and drafts that a test can spoil.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::names::{self, Mixture};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// The trained model under `tests/fixtures`.
pub(crate) fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/jetmoe-mini")
}

/// The golden case of that name under `tests/fixtures`.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/goldens").join(name)
}

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Stored {
    /// Whole numbers counting up, in the element type.
    pub(crate) fn counting(dtype: Dtype, shape: &[usize]) -> Self {
        let count = shape.iter().product::<usize>();
        let bytes = (0..count).map(|index| (index % 7) as f32).flat_map(|value| match dtype {
            Dtype::F32 => value.to_le_bytes().to_vec(),
            Dtype::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
            Dtype::I64 => (value as i64).to_le_bytes().to_vec(),
            other => panic!("no test writes {other:?}"),
        });
        Stored { dtype, shape: shape.to_vec(), bytes: bytes.collect() }
    }
}

/// A small checkpoint before it is written.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) config: Map<String, Value>,
    pub(crate) tensors: BTreeMap<String, Stored>,
}

impl Draft {
    /// Two layers, three experts, every width another number.
    pub(crate) fn tiny() -> Self {
        let Value::Object(config) = json!({
            "architectures": ["JetMoeForCausalLM"],
            "model_type": "jetmoe",
            "vocab_size": 11,
            "hidden_size": 6,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "kv_channels": 4,
            "intermediate_size": 5,
            "num_local_experts": 3,
            "num_experts_per_tok": 2,
            "max_position_embeddings": 32,
        }) else {
            unreachable!()
        };
        let mut shapes =
            vec![(names::EMBEDDING.to_owned(), vec![11, 6]), (names::FINAL_NORM.to_owned(), vec![6])];
        for layer in 0..2 {
            shapes.extend([
                (names::input_norm(layer), vec![6]),
                (names::post_attention_norm(layer), vec![6]),
                (names::kv_projection(layer), vec![16, 6]),
                (names::router(layer, Mixture::Attention), vec![3, 6]),
                (names::expert_input(layer, Mixture::Attention), vec![3, 8, 6]),
                (names::expert_output(layer, Mixture::Attention), vec![3, 6, 8]),
                (names::expert_bias(layer, Mixture::Attention), vec![6]),
                (names::router(layer, Mixture::Mlp), vec![3, 6]),
                (names::expert_input(layer, Mixture::Mlp), vec![3, 10, 6]),
                (names::expert_output(layer, Mixture::Mlp), vec![3, 6, 5]),
                (names::expert_bias(layer, Mixture::Mlp), vec![6]),
            ]);
        }
        let tensors =
            shapes.into_iter().map(|(name, shape)| (name, Stored::counting(Dtype::F32, &shape))).collect();
        Draft { config, tensors }
    }

    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    pub(crate) fn store(mut self, name: &str, tensor: Stored) -> Self {
        self.tensors.insert(name.to_owned(), tensor);
        self
    }

    /// Writes configuration and weights in one file.
    pub(crate) fn write(&self) -> TempDir {
        let folder = self.write_config();
        write_tensors(&folder.path().join(names::WEIGHTS), self.tensors.iter());
        folder
    }

    /// Writes the weights in two shards with their index; `second` decides which tensors go into the second.
    pub(crate) fn write_sharded(&self, second: impl Fn(usize) -> bool) -> TempDir {
        let folder = self.write_config();
        let mut weight_map = Map::new();
        for (file, is_second) in
            [("model-00001-of-00002.safetensors", false), ("model-00002-of-00002.safetensors", true)]
        {
            let held: Vec<_> = self
                .tensors
                .iter()
                .enumerate()
                .filter(|(index, _)| second(*index) == is_second)
                .map(|(_, tensor)| tensor)
                .collect();
            weight_map.extend(held.iter().map(|(name, _)| ((*name).clone(), json!(file))));
            write_tensors(&folder.path().join(file), held.into_iter());
        }
        write_json(&folder.path().join(names::WEIGHTS_INDEX), &json!({ "weight_map": weight_map }));
        folder
    }

    fn write_config(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        write_json(&folder.path().join(names::CONFIG), &Value::Object(self.config.clone()));
        folder
    }
}

pub(crate) fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

fn write_tensors<'a>(path: &Path, tensors: impl Iterator<Item = (&'a String, &'a Stored)>) {
    let views = tensors.map(|(name, tensor)| {
        (name.clone(), TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}
