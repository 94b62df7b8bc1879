//! Checkpoints with random weights, so that any size can be tested anywhere.

use std::io::{BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::weights::weights_of;
use crate::{Dtype, Error, ModelConfig, Result, names, write_whole};

/// How a synthetic checkpoint is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntheticOptions {
    /// Type of every weight.
    pub dtype: Dtype,
    /// The same seed gives the same weights, however they are cut into shards.
    pub seed: u64,
    /// Largest size of a shard in bytes, as far as one tensor is not larger; 5 GB by default, as transformers.
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

/// Writes a checkpoint of a configuration with normally distributed weights whose scale keeps activations sane.
/// `progress` is told the number of bytes written since its last call.
///
/// `config.json` comes last: without it the folder is no checkpoint, so an interrupted run leaves nothing that looks
/// whole.
///
/// # Errors
/// A configuration that describes no model, or what the file system refuses.
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
    let shards = cut(weights_of(&parsed), options);
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
    /// Norms scatter around one. Matrices keep the scale of what goes through them; the experts' outputs are a little
    /// louder, so that the layers and not the embedding decide what comes out.
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

/// Fills shard after shard in the order of the weights.
fn cut(weights: Vec<(String, Vec<usize>)>, options: &SyntheticOptions) -> Vec<Vec<SyntheticWeight>> {
    let mut shards: Vec<Vec<SyntheticWeight>> = Vec::new();
    let mut room = 0;
    for (name, shape) in weights {
        let weight = SyntheticWeight::new(name, shape);
        let bytes = weight.bytes(options.dtype);
        match shards.last_mut() {
            Some(shard) if bytes <= room => shard.push(weight),
            _ => {
                shards.push(vec![weight]);
                room = options.shard_bytes;
            }
        }
        room = room.saturating_sub(bytes);
    }
    shards
}

/// Elements made at a time.
const CHUNK: usize = 1 << 20;

fn write_shard(
    path: &Path,
    weights: &[SyntheticWeight],
    options: &SyntheticOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    write_whole(path, |file| {
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let header = header(weights, options.dtype);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut buffer = vec![0; CHUNK * options.dtype.size()];
        for weight in weights {
            let stream = stream(options.seed, &weight.name);
            for first in (0..weight.elements()).step_by(CHUNK) {
                let count = CHUNK.min(weight.elements() - first);
                let bytes = &mut buffer[..count * options.dtype.size()];
                fill(bytes, weight, options.dtype, stream, first as u64);
                file.write_all(bytes)?;
                progress(bytes.len() as u64);
            }
        }
        file.flush()
    })
    .map_err(failed("write", path))
}

/// The header of a safetensors file (<https://github.com/huggingface/safetensors#format>), padded with spaces so that
/// the data begins at a multiple of eight bytes. It is written here because the crate wants all data in memory.
fn header(weights: &[SyntheticWeight], dtype: Dtype) -> Vec<u8> {
    let mut tensors = Map::new();
    let mut offset = 0;
    for weight in weights {
        let end = offset + weight.bytes(dtype);
        let name = match dtype {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
        };
        let entry = json!({ "dtype": name, "shape": weight.shape, "data_offsets": [offset, end] });
        tensors.insert(weight.name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(tensors).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

fn fill(bytes: &mut [u8], weight: &SyntheticWeight, dtype: Dtype, stream: u64, first: u64) {
    const PIECE: usize = 1 << 14;
    let size = dtype.size();
    bytes.par_chunks_mut(PIECE * size).enumerate().for_each(|(piece, bytes)| {
        let first = first + (piece * PIECE) as u64;
        for (place, element) in bytes.chunks_exact_mut(size).enumerate() {
            let value = weight.mean + weight.deviation * normal(stream, first + place as u64);
            match dtype {
                Dtype::F32 => element.copy_from_slice(&value.to_le_bytes()),
                Dtype::F16 => element.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
                Dtype::Bf16 => element.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
            }
        }
    });
}

/// Where a tensor's random numbers begin: it depends on the seed and the tensor's name only.
fn stream(seed: u64, name: &str) -> u64 {
    let digest = Sha256::new_with_prefix(seed.to_le_bytes()).chain_update(name).finalize();
    digest.iter().take(8).fold(0, |stream, byte| stream << 8 | u64::from(*byte))
}

/// The `index`-th number of a stream, close to normally distributed with mean 0 and deviation 1: the sum of four
/// uniform numbers, cut out of one output of SplitMix64 (<https://doi.org/10.1145/2714064.2660195>), which can be
/// computed for any place at once, so on all cores.
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
    write_whole(path, |file| writeln!(file, "{value:#}")).map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    fn config() -> Value {
        json!({
            "model_type": "jetmoe", "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2,
            "num_key_value_heads": 2, "kv_channels": 4, "intermediate_size": 10, "tie_word_embeddings": false,
        })
    }

    fn written(options: &SyntheticOptions) -> (tempfile::TempDir, Checkpoint) {
        let folder = tempfile::tempdir().unwrap();
        write_synthetic(&config(), folder.path(), options, &mut |_| ()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        (folder, checkpoint)
    }

    fn all_values(checkpoint: &Checkpoint) -> Vec<(String, Vec<f32>)> {
        let tensors = checkpoint.tensors();
        tensors.names().map(|name| (name.to_owned(), tensors.get(name).unwrap().to_f32())).collect()
    }

    #[test]
    fn a_synthetic_checkpoint_is_a_checkpoint() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let (_folder, checkpoint) = written(&SyntheticOptions { dtype, ..SyntheticOptions::default() });
            let weight = checkpoint.tensors().get(names::LM_HEAD).unwrap();
            assert_eq!((weight.dtype, weight.shape), (dtype, &[50, 24][..]));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_weights_however_they_are_cut() {
        let options = SyntheticOptions { seed: 7, ..SyntheticOptions::default() };
        let (single, whole) = written(&options);
        let (shards, cut) = written(&SyntheticOptions { shard_bytes: 3000, ..options });
        assert!(single.path().join(names::WEIGHTS).is_file());
        assert!(shards.path().join(names::WEIGHTS_INDEX).is_file());
        assert_eq!(all_values(&whole), all_values(&cut));
        assert_eq!(whole.digest(&|_| ()).unwrap(), cut.digest(&|_| ()).unwrap());
    }

    #[test]
    fn another_seed_gives_other_weights_and_no_two_tensors_are_alike() {
        let (_first, first) = written(&SyntheticOptions { seed: 1, ..SyntheticOptions::default() });
        let (_second, second) = written(&SyntheticOptions { seed: 2, ..SyntheticOptions::default() });
        for ((name, left), (_, right)) in all_values(&first).iter().zip(&all_values(&second)) {
            assert_ne!(left, right, "{name}");
        }
        let (table, head) = (first.tensors().get(names::EMBEDDING), first.tensors().get(names::LM_HEAD));
        assert_ne!(table.unwrap().to_f32(), head.unwrap().to_f32());
    }

    #[test]
    fn weights_have_the_scale_they_should_have() {
        let values: Vec<f64> = (0..200_000).map(|index| f64::from(normal(stream(3, "x"), index))).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
    }

    #[test]
    fn a_configuration_without_a_model_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new");
        let config = json!({ "model_type": "jetmoe", "num_experts_per_tok": 9 });
        let error = write_synthetic(&config, &target, &SyntheticOptions::default(), &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error}");
        assert!(!target.exists());
    }

    #[test]
    fn jetmoe_8b_has_its_published_size() {
        let config = ModelConfig::from_json(&jetmoe_8b_config()).unwrap();
        assert_eq!(config.parameters(), 8_522_237_952);
    }
}
