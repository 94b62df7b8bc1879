//! Checkpoints with random weights, to test any size on any machine.

use std::io::{self, Write};
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::weights::expected_weights;
use crate::{AtomicFile, Dtype, Error, ModelConfig, Result, names};

/// Options for a synthetic checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntheticOptions {
    /// Type of every weight.
    pub dtype: Dtype,
    /// The same seed gives the same weights, however they are split into shards.
    pub seed: u64,
    /// Largest size of a shard in bytes, unless one tensor is larger; 5 GB by default, as in transformers.
    pub shard_bytes: u64,
}

impl Default for SyntheticOptions {
    fn default() -> Self {
        SyntheticOptions { dtype: Dtype::Bf16, seed: 0, shard_bytes: 5_000_000_000 }
    }
}

/// The configuration of JetMoE-8B, as transformers writes it.
pub fn jetmoe_8b_config() -> Value {
    json!({
        "architectures": ["JetMoeForCausalLM"], "model_type": "jetmoe", "activation_function": "silu",
        "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 2048, "intermediate_size": 5632, "kv_channels": 128,
        "max_position_embeddings": 4096, "num_attention_heads": 32, "num_experts_per_tok": 2,
        "num_hidden_layers": 24, "num_key_value_heads": 16, "num_local_experts": 8, "rms_norm_eps": 1e-6,
        "rope_parameters": { "rope_theta": 10000.0, "rope_type": "default" }, "tie_word_embeddings": true,
        "vocab_size": 32000,
    })
}

/// Writes a checkpoint with normally distributed weights, scaled so that activations keep their magnitude through the
/// layers. `progress` receives the number of bytes written since its last call.
///
/// `config.json` is written last: without it the folder is not a checkpoint, so an interrupted run leaves nothing that
/// looks complete.
///
/// # Errors
/// An invalid configuration, or a file that cannot be written.
pub fn write_synthetic(
    config: &Value,
    folder: &Path,
    options: &SyntheticOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let config_path = folder.join(names::CONFIG);
    let parsed = ModelConfig::from_json(config)
        .map_err(|problems| Error::Config { path: config_path.clone(), problems })?;
    std::fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let shards = split_into_shards(expected_weights(&parsed), options);
    let count = shards.len();
    let mut weight_map = Map::new();
    let mut total_size = 0;
    for (index, shard) in shards.iter().enumerate() {
        let name = match count {
            1 => names::WEIGHTS.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        write_shard(&folder.join(&name), shard, options, progress)?;
        for weight in shard {
            total_size += weight.bytes(options.dtype);
            weight_map.insert(weight.name.clone(), json!(name));
        }
    }
    if count > 1 {
        let index = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
        write_json(&folder.join(names::WEIGHTS_INDEX), &index)?;
    }
    let mut config = config.clone();
    if let Some(object) = config.as_object_mut() {
        object.insert("dtype".to_owned(), json!(options.dtype.to_string()));
    }
    write_json(&config_path, &config)
}

struct SyntheticWeight {
    name: String,
    shape: Vec<usize>,
    mean: f32,
    deviation: f32,
}

impl SyntheticWeight {
    /// Norms are close to 1. Matrices preserve the scale of their inputs; the experts' output projections amplify
    /// slightly, so that the layers and not the embedding dominate the result.
    fn new(name: String, shape: Vec<usize>) -> Self {
        let columns = shape.last().copied().unwrap_or(1) as f32;
        let (mean, deviation) = match name.as_str() {
            norm if norm.contains("norm") => (1.0, 0.2),
            bias if bias.ends_with(".bias") => (0.0, 0.05),
            names::EMBEDDING | names::LM_HEAD | names::SCORE => (0.0, 0.3),
            router if router.contains("router") => (0.0, 2.0 / columns.sqrt()),
            output if output.contains("output_linear") => (0.0, 2.5 / columns.sqrt()),
            _ => (0.0, 1.5 / columns.sqrt()),
        };
        SyntheticWeight { name, shape, mean, deviation }
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn bytes(&self, dtype: Dtype) -> u64 {
        (self.elements() * dtype.size()) as u64
    }
}

/// Fills one shard after the other, in the order of the weights.
fn split_into_shards(
    weights: Vec<(String, Vec<usize>)>,
    options: &SyntheticOptions,
) -> Vec<Vec<SyntheticWeight>> {
    let mut shards: Vec<Vec<SyntheticWeight>> = Vec::new();
    let mut capacity = 0;
    for (name, shape) in weights {
        let weight = SyntheticWeight::new(name, shape);
        let bytes = weight.bytes(options.dtype);
        match shards.last_mut() {
            Some(shard) if bytes <= capacity => shard.push(weight),
            _ => {
                shards.push(vec![weight]);
                capacity = options.shard_bytes;
            }
        }
        capacity = capacity.saturating_sub(bytes);
    }
    shards
}

/// Elements generated at a time.
const CHUNK: usize = 1 << 20;

fn write_shard(
    path: &Path,
    weights: &[SyntheticWeight],
    options: &SyntheticOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    write_atomically(path, |file| {
        let header = safetensors_header(weights, options.dtype);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut buffer = vec![0; CHUNK * options.dtype.size()];
        for weight in weights {
            let stream = random_stream(options.seed, &weight.name);
            for first in (0..weight.elements()).step_by(CHUNK) {
                let count = CHUNK.min(weight.elements() - first);
                let bytes = &mut buffer[..count * options.dtype.size()];
                fill(bytes, weight, options.dtype, stream, first as u64);
                file.write_all(bytes)?;
                progress(bytes.len() as u64);
            }
        }
        Ok(())
    })
}

/// The header of a safetensors file (<https://github.com/huggingface/safetensors#format>), padded with spaces so that
/// the data begins at a multiple of eight bytes. The crate's own writer needs all data in memory.
fn safetensors_header(weights: &[SyntheticWeight], dtype: Dtype) -> Vec<u8> {
    let mut tensors = Map::new();
    let mut offset = 0;
    for weight in weights {
        let end = offset + weight.bytes(dtype);
        let dtype = dtype.to_safetensors();
        let entry = json!({ "dtype": dtype, "shape": weight.shape, "data_offsets": [offset, end] });
        tensors.insert(weight.name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(tensors).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

fn fill(bytes: &mut [u8], weight: &SyntheticWeight, dtype: Dtype, stream: u64, first: u64) {
    const PART: usize = 1 << 14;
    let size = dtype.size();
    bytes.par_chunks_mut(PART * size).enumerate().for_each(|(part, bytes)| {
        let first = first + (part * PART) as u64;
        for (index, element) in bytes.chunks_exact_mut(size).enumerate() {
            let value = weight.mean + weight.deviation * normal(stream, first + index as u64);
            match dtype {
                Dtype::F32 => element.copy_from_slice(&value.to_le_bytes()),
                Dtype::F16 => element.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
                Dtype::Bf16 => element.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
                Dtype::F64 => element.copy_from_slice(&f64::from(value).to_le_bytes()),
            }
        }
    });
}

/// State of a tensor's random numbers, from the seed and the tensor's name.
fn random_stream(seed: u64, name: &str) -> u64 {
    let digest = Sha256::new_with_prefix(seed.to_le_bytes()).chain_update(name).finalize();
    digest.iter().take(8).fold(0, |stream, byte| stream << 8 | u64::from(*byte))
}

/// The `index`-th number of a stream, approximately normal with mean 0 and deviation 1: the sum of the four 16-bit parts
/// of one output of SplitMix64 (<https://doi.org/10.1145/2714064.2660195>). Any index can be computed directly, so all
/// cores share the work.
fn normal(stream: u64, index: u64) -> f32 {
    let mut state = stream.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^= state >> 31;
    let sum = (state & 0xFFFF) + (state >> 16 & 0xFFFF) + (state >> 32 & 0xFFFF) + (state >> 48);
    // four uniform numbers in 0..1 have mean 2 and variance 1/3
    (sum as f32 / 65_536.0 - 2.0) * 3.0_f32.sqrt()
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_atomically(path, |file| writeln!(file, "{value:#}"))
}

fn write_atomically(path: &Path, write: impl FnOnce(&mut AtomicFile) -> io::Result<()>) -> Result<()> {
    let written = AtomicFile::create(path).and_then(|mut file| {
        write(&mut file)?;
        file.commit()
    });
    written.map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests;
