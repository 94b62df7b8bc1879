use std::path::Path;

use half::{bf16, f16};
use jetmoe_checkpoint::names::{self, Mixture};
use jetmoe_checkpoint::{Architecture, ModelConfig};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// Writes a checkpoint with random weights of sane scale, the same every time. The configuration is a small one with
/// the keys of `change` put over it; `dtype` there chooses the type of the weights.
pub(crate) fn write(folder: &Path, change: &Value) {
    let mut config = json!({
        "model_type": "jetmoe", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "kv_channels": 8, "max_position_embeddings": 64,
    });
    let object = config.as_object_mut().unwrap();
    if change.get("moe_num_experts").is_none() {
        object.extend([
            ("num_local_experts".to_owned(), json!(4)),
            ("num_experts_per_tok".to_owned(), json!(2)),
            ("intermediate_size".to_owned(), json!(24)),
        ]);
    }
    object.extend(change.as_object().unwrap().clone());
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(names::CONFIG), config.to_string()).unwrap();
    let dtype = match config.get("dtype").and_then(Value::as_str) {
        Some("float16") => Dtype::F16,
        Some("bfloat16") => Dtype::BF16,
        _ => Dtype::F32,
    };

    let config = ModelConfig::from_json(&config).unwrap();
    let mut numbers = Numbers { state: 0x9E37_79B9_7F4A_7C15 };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(&config)
        .into_iter()
        .map(|(name, shape, center, scale)| {
            let values = (0..shape.iter().product()).map(|_| center + scale * numbers.normal());
            let bytes = values
                .flat_map(|value| match dtype {
                    Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
                    Dtype::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
                    _ => value.to_le_bytes().to_vec(),
                })
                .collect();
            (name, shape, bytes)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.join(names::WEIGHTS)).unwrap();
}

/// Name, shape, mean and standard deviation of every weight. The scales are those of the golden cases.
fn tensors(config: &ModelConfig) -> Vec<(String, Vec<usize>, f32, f32)> {
    let hidden = config.hidden_size;
    let experts = config.num_local_experts;
    let matrix = |columns: usize, gain: f32| gain / (columns as f32).sqrt();
    let mut tensors = vec![
        (names::EMBEDDING.to_owned(), vec![config.vocab_size, hidden], 0.0, 0.3),
        (names::FINAL_NORM.to_owned(), vec![hidden], 1.0, 0.2),
    ];
    for layer in 0..config.num_hidden_layers {
        tensors.extend([
            (names::input_norm(layer), vec![hidden], 1.0, 0.2),
            (names::post_attention_norm(layer), vec![hidden], 1.0, 0.2),
            (names::kv_projection(layer), vec![2 * config.kv_width(), hidden], 0.0, matrix(hidden, 1.5)),
        ]);
        let widths = [
            (Mixture::Attention, config.kv_width(), config.kv_width()),
            (Mixture::Mlp, 2 * config.intermediate_size, config.intermediate_size),
        ];
        for (mixture, rows, columns) in widths {
            tensors.extend([
                (names::router(layer, mixture), vec![experts, hidden], 0.0, matrix(hidden, 2.0)),
                (names::expert_input(layer, mixture), vec![experts, rows, hidden], 0.0, matrix(hidden, 1.5)),
                (
                    names::expert_output(layer, mixture),
                    vec![experts, hidden, columns],
                    0.0,
                    matrix(columns, 2.5),
                ),
                (names::expert_bias(layer, mixture), vec![hidden], 0.0, 0.05),
            ]);
        }
    }
    match config.architecture {
        Architecture::CausalLm if !config.tie_word_embeddings => {
            tensors.push((names::LM_HEAD.to_owned(), vec![config.vocab_size, hidden], 0.0, 0.3));
        }
        Architecture::SequenceClassification => {
            tensors.push((names::SCORE.to_owned(), vec![config.num_labels(), hidden], 0.0, 0.3));
        }
        Architecture::CausalLm | Architecture::Base => {}
    }
    tensors
}

/// Normally distributed numbers by the sum of twelve uniform ones, from xorshift64.
struct Numbers {
    state: u64,
}

impl Numbers {
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    fn uniform(&mut self) -> f32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 40) as f32 / (1_u64 << 24) as f32
    }
}
