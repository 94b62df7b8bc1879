//! Every golden case, against what transformers computed (`tests/fixtures/goldens/make_goldens.py` names the tensors).
//! Positions whose `attention_mask` is 0 are undefined and not compared.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and may report")]

use std::path::Path;

use candle_core::{Device, Tensor};
use jetmoe_checkpoint::{Architecture, Checkpoint};
use jetmoe_reference::{Cache, Inputs, Outputs, Reference};
use jetmoe_testing::fixtures;
use safetensors::SafeTensors;

/// Logits have a scale of about 10, and float32 sums in another order differ by some 1e-5 of it.
const LOGITS_ABSOLUTE: f64 = 2e-4;
/// All other tensors, relative to the golden tensor's largest value: some hundred roundings of float32.
const STATES_RELATIVE: f64 = 2e-5;

/// How far a tensor may be from the golden one.
#[derive(Clone, Copy)]
enum Closeness {
    Logits,
    States,
}

/// A folder with a checkpoint and its `golden.safetensors`.
struct Case {
    name: String,
    reference: Reference,
    bytes: Vec<u8>,
}

/// Inputs that grow while text is generated.
struct Batch {
    input_ids: Vec<i64>,
    attention_mask: Vec<i64>,
    position_ids: Vec<i64>,
    batch_size: usize,
    sequence_length: usize,
}

fn cases() -> Vec<Case> {
    let folders = fixtures::golden_cases();
    assert!(folders.len() >= 12, "golden cases are missing: {folders:?}");
    folders.iter().map(|folder| Case::open(folder)).collect()
}

impl Case {
    fn open(folder: &Path) -> Self {
        Case {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            reference: Reference::load(&Checkpoint::open(folder).unwrap()).unwrap(),
            bytes: std::fs::read(folder.join(fixtures::GOLDEN)).unwrap(),
        }
    }

    fn is_classifier(&self) -> bool {
        self.reference.config().architecture == Architecture::SequenceClassification
    }

    fn layers(&self) -> usize {
        self.reference.config().num_hidden_layers
    }

    fn view<R>(&self, name: &str, read: impl FnOnce(&[usize], &[u8]) -> R) -> R {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        read(view.shape(), view.data())
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        self.view(name, |_, data| {
            data.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
        })
    }

    fn floats(&self, name: &str) -> Tensor {
        self.view(name, |shape, data| {
            let values: Vec<f32> =
                data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        })
    }

    fn batch(&self) -> Batch {
        let shape = self.view("input_ids", |shape, _| shape.to_vec());
        Batch {
            input_ids: self.integers("input_ids"),
            attention_mask: self.integers("attention_mask"),
            position_ids: self.integers("position_ids"),
            batch_size: shape[0],
            sequence_length: shape[1],
        }
    }
}

impl Batch {
    fn run(&self, reference: &Reference, cache: &mut Cache) -> Outputs {
        let inputs = Inputs {
            input_ids: &self.input_ids,
            attention_mask: &self.attention_mask,
            position_ids: &self.position_ids,
            batch_size: self.batch_size,
            sequence_length: self.sequence_length,
        };
        reference.forward(&inputs, cache).unwrap()
    }

    /// The next batch, with one more token per sequence.
    fn next(&self, input_ids: Vec<i64>) -> Batch {
        let columns = self.attention_mask.len() / self.batch_size;
        Batch {
            attention_mask: self
                .attention_mask
                .chunks_exact(columns)
                .flat_map(|row| row.iter().copied().chain([1]))
                .collect(),
            position_ids: self
                .position_ids
                .chunks_exact(self.sequence_length)
                .map(|row| row[self.sequence_length - 1] + 1)
                .collect(),
            input_ids,
            batch_size: self.batch_size,
            sequence_length: 1,
        }
    }
}

/// Compares row by row and records what is out of tolerance.
#[derive(Default)]
struct Comparison {
    report: Vec<String>,
    failures: Vec<String>,
}

impl Comparison {
    /// `counts` is false for the rows (first dimensions of both tensors) of padding.
    fn compare(&mut self, name: &str, found: &Tensor, golden: &Tensor, counts: &[i64], closeness: Closeness) {
        let rows = |tensor: &Tensor| tensor.reshape((counts.len(), ())).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(found.elem_count(), golden.elem_count(), "{name}: {:?} {:?}", found.dims(), golden.dims());
        let (mut largest, mut error) = (0.0_f64, 0.0_f64);
        let mut is_number = true;
        for ((found, golden), _) in
            rows(found).iter().zip(rows(golden)).zip(counts).filter(|(_, counts)| **counts == 1)
        {
            for (found, golden) in found.iter().zip(golden) {
                is_number &= found.is_finite();
                largest = largest.max(f64::from(golden.abs()));
                error = error.max((f64::from(*found) - f64::from(golden)).abs());
            }
        }
        let (error, tolerance) = match closeness {
            Closeness::Logits => (error, LOGITS_ABSOLUTE),
            Closeness::States => (error / largest, STATES_RELATIVE),
        };
        let line = format!("{name}: {error:.1e} of {tolerance:.0e}, largest value {largest:.1}");
        if !is_number || error > tolerance {
            self.failures.push(line.clone());
        }
        self.report.push(line);
    }

    /// Shown with `cargo test -- --nocapture`.
    fn finish(self) {
        println!("{}", self.report.join("\n"));
        assert!(!self.report.is_empty(), "nothing was compared");
        assert!(self.failures.is_empty(), "out of tolerance:\n{}", self.failures.join("\n"));
    }
}

/// `[batch, kv_heads, seq, kv_channels]` → `[batch, seq, kv_heads, kv_channels]`.
fn by_position(cached: &Tensor) -> Tensor {
    cached.transpose(1, 2).unwrap().contiguous().unwrap()
}

fn best_tokens(logits: &Tensor) -> Vec<i64> {
    let (_, sequence, _) = logits.dims3().unwrap();
    let last = logits.narrow(1, sequence - 1, 1).unwrap().squeeze(1).unwrap();
    last.argmax(1).unwrap().to_vec1::<u32>().unwrap().into_iter().map(i64::from).collect()
}

#[test]
fn every_state_every_route_and_the_cache_are_those_of_transformers() {
    let mut comparison = Comparison::default();
    for case in cases() {
        let batch = case.batch();
        let mut cache = Cache::new();
        let outputs = batch.run(&case.reference, &mut cache);
        let mut compare = |name: &str, found: &Tensor, golden: &Tensor| {
            let name = format!("{} {name}", case.name);
            comparison.compare(&name, found, golden, &batch.attention_mask, Closeness::States);
        };
        assert_eq!(outputs.hidden_states.len(), case.layers() + 1);
        compare("embeddings", &outputs.hidden_states[0], &case.floats("embeddings"));
        for layer in 0..case.layers() {
            let output = format!("layer.{layer}.output");
            compare(&output, &outputs.hidden_states[layer + 1], &case.floats(&output));
            let attention = format!("layer.{layer}.attn_router_logits");
            compare(&attention, &outputs.attention_router_logits[layer], &case.floats(&attention));
            let mlp = format!("layer.{layer}.mlp_router_logits");
            compare(&mlp, &outputs.mlp_router_logits[layer], &case.floats(&mlp));
            if !case.is_classifier() {
                let cached = &cache.layers()[layer];
                for (part, found) in [("key", &cached.key), ("value", &cached.value)] {
                    let name = format!("present.{layer}.{part}");
                    compare(&name, &by_position(found), &by_position(&case.floats(&name)));
                }
            }
        }
        compare("last_hidden_state", &outputs.last_hidden_state, &case.floats("last_hidden_state"));
    }
    comparison.finish();
}

#[test]
fn logits_after_the_prompt_and_after_one_cached_step_are_those_of_transformers() {
    let mut comparison = Comparison::default();
    for case in cases().into_iter().filter(|case| !case.is_classifier()) {
        let reference = &case.reference;
        let batch = case.batch();
        let mut cache = Cache::new();
        let logits = reference.logits(&batch.run(reference, &mut cache).last_hidden_state).unwrap();
        let name = format!("{} logits", case.name);
        comparison.compare(&name, &logits, &case.floats("logits"), &batch.attention_mask, Closeness::Logits);

        let next = batch.next(case.integers("next.input_ids"));
        assert_eq!(next.input_ids, best_tokens(&logits), "{}", case.name);
        let logits = reference.logits(&next.run(reference, &mut cache).last_hidden_state).unwrap();
        let name = format!("{} next.logits", case.name);
        let golden = case.floats("next.logits");
        comparison.compare(&name, &logits, &golden, &vec![1; batch.batch_size], Closeness::Logits);
    }
    comparison.finish();
}

#[test]
fn class_logits_are_those_of_transformers() {
    let mut comparison = Comparison::default();
    for case in cases().into_iter().filter(Case::is_classifier) {
        let batch = case.batch();
        let outputs = batch.run(&case.reference, &mut Cache::new());
        let logits = case.reference.class_logits(&outputs.last_hidden_state, &batch.input_ids).unwrap();
        assert_eq!(logits.dims(), [batch.batch_size, case.reference.config().num_labels()]);
        let name = format!("{} class_logits", case.name);
        let golden = case.floats("class_logits");
        comparison.compare(&name, &logits, &golden, &vec![1; batch.batch_size], Closeness::Logits);
    }
    comparison.finish();
}

#[test]
fn greedy_continuations_of_left_padded_batches_are_those_of_transformers() {
    for case in cases().into_iter().filter(|case| !case.is_classifier()) {
        let reference = &case.reference;
        let end = i64::from(reference.config().eos_token_ids[0]);
        let filler = reference.config().pad_token_id.map_or(end, i64::from);
        let golden = case.integers("generated");

        let mut batch = case.batch();
        let steps = golden.len() / batch.batch_size;
        let mut cache = Cache::new();
        let mut generated = vec![Vec::new(); batch.batch_size];
        for _ in 0..steps {
            let logits = reference.logits(&batch.run(reference, &mut cache).last_hidden_state).unwrap();
            let mut chosen = best_tokens(&logits);
            for (token, text) in chosen.iter_mut().zip(&mut generated) {
                if text.contains(&end) {
                    *token = filler;
                }
                text.push(*token);
            }
            batch = batch.next(chosen);
        }
        assert_eq!(generated.concat(), golden, "{}", case.name);
    }
}
