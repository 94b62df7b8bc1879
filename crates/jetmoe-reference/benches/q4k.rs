//! One MLP layer of JetMoE-8B in Candle's `Q4K`, for comparison with `jetmoe-kernels`: 4-bit weights in groups of 32 with
//! 6-bit scales, and runtime dispatch on the instruction set.
//!
//! `cargo bench -p jetmoe-reference --bench q4k -- [--repetitions N] [--layers N] [--tokens 1,16,128,512]` prints a JSON
//! object; `RAYON_NUM_THREADS` sets the number of threads. `cargo xtask bench --kernels` calls it and reads that.

#![allow(clippy::print_stdout)] // the result

#[path = "../../jetmoe-kernels/benches/layers/layer.rs"]
mod layer;

use std::time::Instant;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Result, Tensor};

use self::layer::{EXPERTS, HIDDEN, INTERMEDIATE, TOP_K};

/// Bytes of a super-block of 256 weights.
const BLOCK_BYTES: usize = 144;
const BLOCK_WEIGHTS: usize = 256;

/// Weights of an expert.
struct Expert {
    /// `[2 * intermediate, hidden]`
    gate_and_up: QMatMul,
    /// `[hidden, intermediate]`
    down: QMatMul,
}

impl Expert {
    fn random() -> Result<Self> {
        let weight = |outputs: usize, inputs: usize| {
            let floats = Tensor::randn(0.0_f32, 0.02, (outputs, inputs), &Device::Cpu)?;
            QMatMul::from_qtensor(QTensor::quantize(&floats, GgmlDType::Q4K)?)
        };
        Ok(Expert { gate_and_up: weight(2 * INTERMEDIATE, HIDDEN)?, down: weight(HIDDEN, INTERMEDIATE)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let both = self.gate_and_up.forward(x)?; // [rows, 2 * intermediate]
        let (gate, up) = (both.narrow(1, 0, INTERMEDIATE)?, both.narrow(1, INTERMEDIATE, INTERMEDIATE)?);
        self.down.forward(&(gate.silu()? * up)?)
    }
}

/// For each expert with tokens, the indices of its tokens.
fn grouped(tokens: usize) -> Result<Vec<(usize, Tensor)>> {
    let choices = layer::choices(tokens);
    let rows = |expert: usize| {
        let uses = choices.iter().enumerate().filter(move |(_, chosen)| **chosen == expert as i64);
        uses.map(|(index, _)| (index / TOP_K) as u32).collect::<Vec<_>>()
    };
    let groups = (0..EXPERTS).map(|expert| (expert, rows(expert))).filter(|(_, rows)| !rows.is_empty());
    groups.map(|(expert, rows)| Ok((expert, Tensor::new(rows, &Device::Cpu)?))).collect()
}

fn forward(layer: &[Expert], x: &Tensor, groups: &[(usize, Tensor)]) -> Result<Tensor> {
    let mut y = x.zeros_like()?;
    for (expert, rows) in groups {
        let result = layer[*expert].forward(&x.index_select(rows, 0)?)?;
        y = y.index_add(rows, &(result * 0.5)?, 0)?;
    }
    Ok(y)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let options = layer::Options::new();
    let count = options.number("--layers", "4")?;
    let layers = (0..count).map(|_| (0..EXPERTS).map(|_| Expert::random()).collect::<Result<Vec<_>>>());
    let layers = layers.collect::<Result<Vec<_>>>()?;
    let mut runs = Vec::new();
    for tokens in options.tokens()? {
        let x = Tensor::rand(-0.5_f32, 0.5, (tokens, HIDDEN), &Device::Cpu)?;
        let groups = grouped(tokens)?;
        let used = &layers[..layer::layers_of(tokens, count)];
        let mut times = Vec::new();
        // the first round only warms up, and packs the weights
        for _ in 0..=options.number("--repetitions", "3")? {
            let started = Instant::now();
            for layer in used {
                let y = forward(layer, &x, &groups)?;
                if !y.abs()?.max_all()?.to_scalar::<f32>()?.is_finite() {
                    return Err("the result has infinities".into());
                }
            }
            times.push(started.elapsed().as_secs_f64() * 1e3 / used.len() as f64);
        }
        times.remove(0);
        let bytes = layer::chosen_experts(tokens) * layer::WEIGHTS / BLOCK_WEIGHTS * BLOCK_BYTES;
        runs.push(format!(
            "{{\"tokens\":{tokens},\"milliseconds\":{},\"operations\":{},\"weight_bytes\":{bytes},\
             \"runtime\":\"candle, 4-bit (Q4K), activations in 8 bits\"}}",
            layer::median(times),
            layer::operations(tokens),
        ));
    }
    println!("{{\"runs\":[{}]}}", runs.join(","));
    Ok(())
}
