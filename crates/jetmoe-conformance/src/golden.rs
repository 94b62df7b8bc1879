//! Golden files: results of transformers, in the format that `make_goldens.py` documents.

use std::path::Path;

use jetmoe_artifact::OutputName;
use jetmoe_checkpoint::ModelConfig;
use jetmoe_rt::{TensorMap, TokenBatch};
use ndarray::{Array2, ArrayD, IxDyn};
use safetensors::{Dtype, SafeTensors};

use crate::{Error, Expectation, Result};

/// Reads a golden file for a model of this configuration.
///
/// # Errors
/// A file that cannot be read, or that lacks a required tensor.
pub fn read_golden(path: &Path, config: &ModelConfig) -> Result<Expectation> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    let wrong = |message: String| Error::Golden { path: path.to_owned(), message };
    let file =
        GoldenFile { tensors: SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))? };
    file.expectation(path, config).map_err(wrong)
}

struct GoldenFile<'a> {
    tensors: SafeTensors<'a>,
}

impl GoldenFile<'_> {
    fn expectation(&self, path: &Path, config: &ModelConfig) -> Result<Expectation, String> {
        let ids = self.matrix("input_ids")?;
        let mask = self.matrix("attention_mask")?.mapv(|counts| counts == 1);
        let (rows, columns) = ids.dim();
        let batch = TokenBatch::masked(to_token_ids(ids)?, mask).map_err(|error| error.to_string())?;

        let mut tensors = TensorMap::new();
        let mut names = self.tensors.names();
        // the same file is always rejected for the same tensor
        names.sort_unstable();
        for name in names {
            let Some(output) = output_name(name) else { continue };
            let mut tensor = self.floats(name)?;
            if matches!(output, OutputName::AttentionRouterLogits(_) | OutputName::MlpRouterLogits(_)) {
                // transformers flattens batch and sequence here
                let shape = IxDyn(&[rows, columns, config.num_local_experts]);
                let found = tensor.shape().to_vec();
                tensor = tensor.into_shape_with_order(shape).map_err(|_| {
                    let experts = config.num_local_experts;
                    format!(
                        "{name} has shape {found:?}, expected {:?} for a model with {experts} experts",
                        [rows * columns, experts]
                    )
                })?;
            }
            tensors.insert(output, tensor);
        }
        if tensors.is_empty() {
            return Err("it holds no expected output".to_owned());
        }
        let next = if self.has("next.input_ids") {
            let ids = to_token_ids(self.matrix("next.input_ids")?)?;
            Some((ids.iter().copied().collect(), self.floats("next.logits")?))
        } else {
            None
        };
        let greedy = if self.has("generated") {
            let rows = to_token_ids(self.matrix("generated")?)?;
            let ends = &config.eos_token_ids;
            Some(rows.rows().into_iter().map(|row| until_end(row.iter().copied(), ends)).collect())
        } else {
            None
        };
        Ok(Expectation { source: path.display().to_string(), batch, tensors, next, greedy })
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    fn floats(&self, name: &str) -> Result<ArrayD<f32>, String> {
        let view = self.tensors.tensor(name).map_err(|error| format!("{name}: {error}"))?;
        if view.dtype() != Dtype::F32 {
            return Err(format!("{name} holds {:?}, expected F32", view.dtype()));
        }
        let (chunks, _) = view.data().as_chunks::<4>();
        let values = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        ArrayD::from_shape_vec(IxDyn(view.shape()), values).map_err(|error| format!("{name}: {error}"))
    }

    fn matrix(&self, name: &str) -> Result<Array2<i64>, String> {
        let view = self.tensors.tensor(name).map_err(|error| format!("{name}: {error}"))?;
        let (Dtype::I64, &[rows, columns]) = (view.dtype(), view.shape()) else {
            return Err(format!("{name} is {:?} {:?}, expected an I64 matrix", view.dtype(), view.shape()));
        };
        let (chunks, _) = view.data().as_chunks::<8>();
        let values = chunks.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        Array2::from_shape_vec((rows, columns), values).map_err(|error| format!("{name}: {error}"))
    }
}

fn to_token_ids(ids: Array2<i64>) -> Result<Array2<u32>, String> {
    match ids.iter().find(|id| u32::try_from(**id).is_err()) {
        Some(id) => Err(format!("{id} is no token id")),
        None => Ok(ids.mapv(|id| id as u32)),
    }
}

/// The output of a golden tensor.
fn output_name(golden: &str) -> Option<OutputName> {
    match golden {
        "embeddings" => return Some(OutputName::HiddenState(0)),
        "class_logits" => return Some(OutputName::Logits),
        "logits" | "last_hidden_state" => return golden.parse().ok(),
        _ => {}
    }
    if golden.starts_with("present.") {
        return golden.parse().ok();
    }
    let (layer, what) = golden.strip_prefix("layer.")?.split_once('.')?;
    let layer = layer.parse::<usize>().ok()?;
    match what {
        "output" => Some(OutputName::HiddenState(layer + 1)),
        "attn_router_logits" => Some(OutputName::AttentionRouterLogits(layer)),
        "mlp_router_logits" => Some(OutputName::MlpRouterLogits(layer)),
        _ => None,
    }
}

/// A continuation up to and including its end-of-sequence token; the rest is padding.
fn until_end(ids: impl Iterator<Item = u32>, ends: &[u32]) -> Vec<u32> {
    let mut continuation = Vec::new();
    for id in ids {
        continuation.push(id);
        if ends.contains(&id) {
            break;
        }
    }
    continuation
}

#[cfg(test)]
mod tests;
