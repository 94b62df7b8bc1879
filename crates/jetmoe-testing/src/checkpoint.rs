//! Small checkpoints that a test makes or changes before they are written.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::files::write_json;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftTensor {
    /// The element type that it is written in.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub values: Vec<f32>,
}

impl DraftTensor {
    /// Small whole numbers, which every element type holds exactly.
    pub fn counting(dtype: Dtype, shape: &[usize]) -> Self {
        let values = (0..shape.iter().product()).map(|index: usize| (index % 7) as f32).collect();
        DraftTensor { dtype, shape: shape.to_vec(), values }
    }

    /// The elements as the file holds them.
    pub fn bytes(&self) -> Vec<u8> {
        let encode = |value: &f32| match self.dtype {
            Dtype::F32 => value.to_le_bytes().to_vec(),
            Dtype::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(*value).to_le_bytes().to_vec(),
            Dtype::I64 => (*value as i64).to_le_bytes().to_vec(),
            Dtype::I32 => (*value as i32).to_le_bytes().to_vec(),
            Dtype::I8 => (*value as i8).to_le_bytes().to_vec(),
            Dtype::BOOL => vec![u8::from(*value != 0.0)],
            other => panic!("no test writes {other:?}"),
        };
        self.values.iter().flat_map(encode).collect()
    }
}

/// A checkpoint before it is written.
#[derive(Debug, Clone, Default)]
pub struct CheckpointDraft {
    /// `config.json`.
    pub config: Map<String, Value>,
    /// The weights by name.
    pub tensors: BTreeMap<String, DraftTensor>,
}

impl CheckpointDraft {
    /// A checkpoint with float32 or bfloat16 weights in one file.
    ///
    /// # Panics
    /// If it has weights of another type.
    pub fn read(folder: &Path) -> Self {
        let config = serde_json::from_slice(&std::fs::read(folder.join(CONFIG)).unwrap()).unwrap();
        let bytes = std::fs::read(folder.join(WEIGHTS)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors.iter().map(|(name, view)| {
            let values = match view.dtype() {
                Dtype::F32 => {
                    view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
                }
                Dtype::BF16 => view
                    .data()
                    .as_chunks()
                    .0
                    .iter()
                    .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
                    .collect(),
                other => panic!("{name} in {} is {other:?}", folder.display()),
            };
            (name.to_owned(), DraftTensor { dtype: view.dtype(), shape: view.shape().to_vec(), values })
        });
        CheckpointDraft { config, tensors: tensors.collect() }
    }

    /// The same with another value in the configuration.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    /// The same with another tensor.
    #[must_use]
    pub fn store(mut self, name: &str, tensor: DraftTensor) -> Self {
        self.tensors.insert(name.to_owned(), tensor);
        self
    }

    /// The elements of a weight, row-major.
    pub fn weight(&mut self, name: &str) -> &mut [f32] {
        &mut self.tensors.get_mut(name).unwrap_or_else(|| panic!("no weight {name}")).values
    }

    /// One index of a weight's first dimension: an expert, or an output.
    pub fn row(&mut self, name: &str, index: usize) -> &mut [f32] {
        let rows = self.tensors[name].shape[0];
        let weight = self.weight(name);
        let length = weight.len() / rows;
        &mut weight[index * length..][..length]
    }

    /// Exchanges two rows of a weight.
    pub fn swap_rows(&mut self, name: &str, left: usize, right: usize) {
        let [left_row, right_row] = [left, right].map(|index| self.row(name, index).to_vec());
        self.row(name, left).copy_from_slice(&right_row);
        self.row(name, right).copy_from_slice(&left_row);
    }

    /// Writes it into a temporary folder, the weights in one file.
    pub fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        self.write_into(folder.path());
        folder
    }

    /// Writes it into a folder, the weights in one file.
    pub fn write_into(&self, folder: &Path) {
        self.write_config(folder);
        self.write_weights(&folder.join(WEIGHTS));
    }

    /// Writes the weights into one file, and creates its folder.
    pub fn write_weights(&self, path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_tensors(path, self.tensors.iter());
    }

    /// Writes it into a temporary folder, the weights in two shards with their index; `is_second` decides by a tensor's
    /// number which shard holds it.
    pub fn write_sharded(&self, is_second: impl Fn(usize) -> bool) -> TempDir {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        self.write_config(folder);
        let mut weight_map = Map::new();
        for (number, in_second) in [(1, false), (2, true)] {
            let file = format!("model-0000{number}-of-00002.safetensors");
            let shard = self.tensors.iter().enumerate();
            let shard = shard.filter(|(index, _)| is_second(*index) == in_second);
            let shard: Vec<_> = shard.map(|(_, tensor)| tensor).collect();
            weight_map.extend(shard.iter().map(|(name, _)| ((*name).clone(), json!(file))));
            write_tensors(&folder.join(file), shard.into_iter());
        }
        write_json(&folder.join(INDEX), &json!({ "weight_map": weight_map }));
        temporary
    }

    fn write_config(&self, folder: &Path) {
        write_json(&folder.join(CONFIG), &Value::Object(self.config.clone()));
    }
}

fn write_tensors<'a>(path: &Path, tensors: impl Iterator<Item = (&'a String, &'a DraftTensor)>) {
    let encoded: Vec<_> = tensors.map(|(name, tensor)| (name, tensor, tensor.bytes())).collect();
    let views = encoded.iter().map(|(name, tensor, bytes)| {
        (name.as_str(), TensorView::new(tensor.dtype, tensor.shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}
