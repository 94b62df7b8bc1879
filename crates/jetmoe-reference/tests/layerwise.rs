//! The model run layer by layer: the same results, and the observer receives every input of a product.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use candle_core::Tensor;
use jetmoe_checkpoint::names::{self, Mixture};
use jetmoe_checkpoint::{Checkpoint, ModelConfig};
use jetmoe_reference::{Cache, Error, Inputs, LayerwiseReference, Observer, Reference};
use jetmoe_testing::fixtures;

const CASES: [&str; 4] = ["tiny", "odd", "top1", "yarn-rope"];

fn open(case: &str) -> Checkpoint {
    Checkpoint::open(fixtures::checkpoint(case)).unwrap()
}

/// Two sequences of different lengths.
fn sequences(config: &ModelConfig) -> Vec<Vec<u32>> {
    let ids = |ids: &[u32]| ids.iter().map(|id| id % config.vocab_size as u32).collect();
    vec![ids(&[1, 17, 93, 42, 42, 108, 5]), ids(&[1, 64, 3])]
}

fn whole(reference: &Reference, sequence: &[u32]) -> Tensor {
    let ids: Vec<i64> = sequence.iter().map(|id| i64::from(*id)).collect();
    let inputs = Inputs {
        input_ids: &ids,
        attention_mask: &vec![1; ids.len()],
        position_ids: &(0..ids.len() as i64).collect::<Vec<_>>(),
        batch_size: 1,
        sequence_length: ids.len(),
    };
    reference.forward(&inputs, &mut Cache::new()).unwrap().last_hidden_state
}

/// Number of values that each product read.
#[derive(Default)]
struct Seen {
    numbers: BTreeMap<(String, Option<usize>), usize>,
    sequences: usize,
    last: Vec<f32>,
}

impl Seen {
    fn of(&self, tensor: &str) -> usize {
        let its = self.numbers.iter().filter(|((name, _), _)| name == tensor);
        its.map(|(_, numbers)| numbers).sum()
    }
}

impl Observer for Seen {
    fn observe(&mut self, tensor: &str, expert: Option<usize>, rows: &[f32]) {
        *self.numbers.entry((tensor.to_owned(), expert)).or_default() += rows.len();
        self.last = rows.to_vec();
    }

    fn sequence_done(&mut self) {
        self.sequences += 1;
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn layer_by_layer_the_states_are_those_of_the_whole_model() {
    for case in CASES {
        let checkpoint = open(case);
        let reference = Reference::load(&checkpoint).unwrap();
        let sequences = sequences(checkpoint.config());
        let mut layerwise = LayerwiseReference::new(&checkpoint, &sequences).unwrap();
        let mut seen = Seen::default();
        assert_eq!(layerwise.next_layer(&mut seen).unwrap(), Some(0));
        let states = layerwise.last_hidden_states(&mut seen).unwrap();
        assert_eq!(states.len(), sequences.len());
        for (state, sequence) in states.iter().zip(&sequences) {
            let expected = whole(&reference, sequence);
            assert_eq!(state.dims(), expected.dims());
            // the same operations in the same order
            assert_eq!(values(state), values(&expected), "{case}");
        }
        assert_eq!(seen.last, values(&states[1]), "the head reads the last hidden states");
    }
}

#[test]
fn every_product_is_seen_with_every_row_it_reads() {
    for case in CASES {
        let checkpoint = open(case);
        let config = checkpoint.config();
        let sequences = sequences(config);
        let tokens: usize = sequences.iter().map(Vec::len).sum();
        let mut layerwise = LayerwiseReference::new(&checkpoint, &sequences).unwrap();
        let mut seen = Seen::default();
        for layer in 0..config.num_hidden_layers {
            assert_eq!(layerwise.next_layer(&mut seen).unwrap(), Some(layer));
        }
        assert_eq!(layerwise.next_layer(&mut seen).unwrap(), None);
        layerwise.last_hidden_states(&mut seen).unwrap();

        let rows = tokens * config.num_experts_per_token;
        for layer in 0..config.num_hidden_layers {
            assert_eq!(seen.of(&names::kv_projection(layer)), tokens * config.hidden_size);
            for mixture in [Mixture::Attention, Mixture::Mlp] {
                let inner = match mixture {
                    Mixture::Attention => config.kv_width(),
                    Mixture::Mlp => config.intermediate_size,
                };
                assert_eq!(seen.of(&names::expert_input(layer, mixture)), rows * config.hidden_size);
                assert_eq!(seen.of(&names::expert_output(layer, mixture)), rows * inner);
            }
        }
        let head = if config.tie_word_embeddings { names::EMBEDDING } else { names::LM_HEAD };
        assert_eq!(seen.of(head), tokens * config.hidden_size, "{case}");
        assert_eq!(seen.sequences, sequences.len() * (config.num_hidden_layers + 1));
    }
}

#[test]
fn a_sequence_that_is_empty_or_has_unknown_tokens_is_refused() {
    let checkpoint = open("tiny");
    let refused = |sequence: Vec<u32>| LayerwiseReference::new(&checkpoint, &[sequence]).err().unwrap();
    assert!(matches!(refused(Vec::new()), Error::EmptyInputs { .. }));
    let vocabulary = checkpoint.config().vocab_size as u32;
    assert!(matches!(refused(vec![1, vocabulary]), Error::InputValue { index: 1, .. }));
}
