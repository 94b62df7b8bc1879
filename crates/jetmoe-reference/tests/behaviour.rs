//! Behaviour that callers rely on: the cache, padding, and an error for every invalid input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;

use candle_core::{D, Tensor};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_reference::{Cache, Error, Inputs, Outputs, Reference};
use jetmoe_testing::fixtures;

/// Rounding of the same sums in another order; states are below 10 here.
const SAME_SUMS: f32 = 1e-4;

const TEXT: [i64; 8] = [1, 17, 93, 42, 42, 108, 5, 64];

fn load(case: &str) -> Reference {
    Reference::load(&Checkpoint::open(fixtures::checkpoint(case)).unwrap()).unwrap()
}

/// Reads `ids` as one sequence after `cache`.
fn read(reference: &Reference, ids: &[i64], cache: &mut Cache) -> Outputs {
    let start = cache.len();
    let position_ids: Vec<i64> = (start..start + ids.len()).map(|position| position as i64).collect();
    let inputs = Inputs {
        input_ids: ids,
        attention_mask: &vec![1; start + ids.len()],
        position_ids: &position_ids,
        batch_size: 1,
        sequence_length: ids.len(),
    };
    reference.forward(&inputs, cache).unwrap()
}

#[track_caller]
fn assert_same(left: &Tensor, right: &Tensor) {
    assert_eq!(left.dims(), right.dims());
    let difference = (left - right).unwrap().abs().unwrap().flatten_all().unwrap().max(D::Minus1).unwrap();
    let difference = difference.to_scalar::<f32>().unwrap();
    assert!(difference <= SAME_SUMS, "{difference}");
}

#[test]
fn a_reference_can_be_shared_between_threads() {
    fn assert_shareable<T: Send + Sync>() {}
    assert_shareable::<Reference>();
    assert_shareable::<Cache>();
}

#[test]
fn text_read_in_pieces_gives_the_states_of_text_read_at_once() {
    for case in ["tiny", "odd", "yarn-rope"] {
        let reference = load(case);
        let text = TEXT.map(|id| id % reference.config().vocab_size as i64);
        let mut whole_cache = Cache::new();
        let whole = read(&reference, &text, &mut whole_cache).last_hidden_state;

        let mut cache = Cache::new();
        let mut pieces = Vec::new();
        for piece in [&text[..3], &text[3..4], &text[4..]] {
            pieces.push(read(&reference, piece, &mut cache).last_hidden_state);
        }
        assert_same(&Tensor::cat(&pieces, 1).unwrap(), &whole);
        assert_eq!(cache.len(), text.len());
        for (left, right) in cache.layers().iter().zip(whole_cache.layers()) {
            assert_same(&left.key, &right.key);
            assert_same(&left.value, &right.value);
        }
    }
}

#[test]
fn padding_on_the_left_does_not_change_a_sequence_and_gives_numbers() {
    let reference = load("tiny");
    let alone = read(&reference, &TEXT, &mut Cache::new()).last_hidden_state;
    let inputs = Inputs {
        input_ids: &[&[0, 0, 0], &TEXT[..], &[9; 11]].concat(),
        attention_mask: &[&[0, 0, 0], &[1; 8][..], &[1; 11]].concat(),
        position_ids: &[&[0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7][..], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]
            .concat(),
        batch_size: 2,
        sequence_length: 11,
    };
    let padded = reference.forward(&inputs, &mut Cache::new()).unwrap().last_hidden_state;
    assert_same(&padded.narrow(0, 0, 1).unwrap().narrow(1, 3, 8).unwrap(), &alone);
    let all = padded.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(all.iter().all(|value| value.is_finite()));
}

#[test]
fn a_token_does_not_see_what_follows_it() {
    let reference = load("tiny");
    let mut changed = TEXT;
    changed[5] = 77;
    let left = read(&reference, &TEXT, &mut Cache::new()).last_hidden_state;
    let right = read(&reference, &changed, &mut Cache::new()).last_hidden_state;
    assert_same(&left.narrow(1, 0, 5).unwrap(), &right.narrow(1, 0, 5).unwrap());
    let after =
        |states: &Tensor| states.narrow(1, 5, 3).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_ne!(after(&left), after(&right));
}

#[test]
fn a_call_that_is_stopped_between_layers_leaves_the_cache_as_it_was() {
    let reference = load("tiny");
    let layers = reference.config().num_hidden_layers;
    let mut cache = Cache::new();
    read(&reference, &TEXT[..3], &mut cache);
    let inputs = Inputs {
        input_ids: &[42, 43],
        attention_mask: &[1; 5],
        position_ids: &[3, 4],
        batch_size: 1,
        sequence_length: 2,
    };
    for allowed in 0..layers {
        let asked = Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) == allowed;
        let error = reference.forward_until(&inputs, &mut cache, stop).unwrap_err();
        assert!(matches!(error, Error::Stopped { layer } if layer == allowed), "{error}");
        assert_eq!(cache.len(), 3);
    }
    let continued = read(&reference, &TEXT[3..], &mut cache).last_hidden_state;
    let whole = read(&reference, &TEXT, &mut Cache::new()).last_hidden_state;
    assert_same(&continued, &whole.narrow(1, 3, 5).unwrap());
}

/// The error for invalid inputs after three tokens; the cache must be unchanged.
fn refused(change: impl FnOnce(&mut Inputs<'_>)) -> Error {
    let reference = load("tiny");
    let mut cache = Cache::new();
    read(&reference, &TEXT[..3], &mut cache);
    let mut inputs = Inputs {
        input_ids: &[42, 43],
        attention_mask: &[1; 5],
        position_ids: &[3, 4],
        batch_size: 1,
        sequence_length: 2,
    };
    change(&mut inputs);
    let error = reference.forward(&inputs, &mut cache).unwrap_err();
    assert_eq!(cache.len(), 3);
    // the next call is not affected
    let continued = read(&reference, &TEXT[3..], &mut cache).last_hidden_state;
    let whole = read(&reference, &TEXT, &mut Cache::new()).last_hidden_state;
    assert_same(&continued, &whole.narrow(1, 3, 5).unwrap());
    error
}

#[test]
fn a_token_beyond_the_vocabulary_is_refused_with_its_place() {
    let error = refused(|inputs| inputs.input_ids = &[42, 131]);
    assert!(matches!(error, Error::InputValue { sequence: 0, index: 1, found: 131, .. }), "{error}");
    assert_eq!(error.to_string(), "input_ids[0, 1] is 131, expected 0 to 130");
    let error = refused(|inputs| inputs.input_ids = &[-1, 42]);
    assert_eq!(error.to_string(), "input_ids[0, 0] is -1, expected 0 to 130");
}

#[test]
fn a_mask_that_leaves_out_the_cached_tokens_is_refused() {
    let error = refused(|inputs| inputs.attention_mask = &[1; 2]);
    assert_eq!(error.to_string(), "attention_mask has 2 values, expected 1 × 5 = 5");
}

#[test]
fn a_mask_of_other_values_than_0_and_1_is_refused() {
    let error = refused(|inputs| inputs.attention_mask = &[1, 1, 2, 1, 1]);
    assert_eq!(error.to_string(), "attention_mask[0, 2] is 2, expected 0 to 1");
}

#[test]
fn a_negative_position_is_refused() {
    let error = refused(|inputs| inputs.position_ids = &[3, -4]);
    assert_eq!(error.to_string(), "position_ids[0, 1] is -4, expected at least 0");
}

#[test]
fn no_token_at_all_is_refused() {
    let error = refused(|inputs| {
        inputs.input_ids = &[];
        inputs.sequence_length = 0;
    });
    assert!(matches!(error, Error::EmptyInputs { batch_size: 1, sequence_length: 0 }), "{error}");
}

#[test]
fn a_cache_of_another_batch_is_refused() {
    let error = refused(|inputs| {
        inputs.input_ids = &[42, 43];
        inputs.attention_mask = &[1; 8];
        inputs.position_ids = &[3, 3];
        inputs.batch_size = 2;
        inputs.sequence_length = 1;
    });
    assert_eq!(
        error.to_string(),
        "the cache has 2 layers of [1, 4, 3, 16], expected 2 layers of [2, 4, 3, 16]; begin with an empty cache"
    );
}

#[test]
fn a_head_that_the_checkpoint_lacks_is_named() {
    let causal = load("tiny");
    let state = read(&causal, &TEXT, &mut Cache::new()).last_hidden_state;
    let error = causal.class_logits(&state, &TEXT).unwrap_err();
    assert!(matches!(error, Error::MissingHead { head: "score.weight" }), "{error}");

    // the classifier, with its embedding not tied to a language-model head
    let untied = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(fixtures::checkpoint("classifier").join("config.json")).unwrap();
    let config = config.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    std::fs::write(untied.path().join("config.json"), config).unwrap();
    let weights = "model.safetensors";
    std::fs::copy(fixtures::checkpoint("classifier").join(weights), untied.path().join(weights)).unwrap();
    let classifier = Reference::load(&Checkpoint::open(untied.path()).unwrap()).unwrap();
    let error = classifier.logits(&state).unwrap_err();
    assert!(matches!(error, Error::MissingHead { head: "lm_head.weight" }), "{error}");
}

#[test]
fn a_state_of_the_wrong_width_is_an_error_with_the_place_and_the_shapes() {
    let state = read(&load("odd"), &[1, 2, 3], &mut Cache::new()).last_hidden_state;
    let error = load("tiny").logits(&state).unwrap_err();
    assert!(error.to_string().contains("the language-model head"), "{error}");
    assert!(error.to_string().contains("48"), "{error}");
}
