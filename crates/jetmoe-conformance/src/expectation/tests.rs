use jetmoe_artifact::{OutputName, Task};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_testing::fixtures;
use ndarray::Array1;

use super::*;
use crate::faulty::faulty_model;
use crate::{BackendName, Tolerance, compare};

#[test]
fn a_model_meets_its_own_expectation_exactly() {
    for (fixture, task) in
        [("tiny", Task::CausalLm), ("odd", Task::Backbone), ("classifier", Task::SequenceClassification)]
    {
        let model = faulty_model(fixture, task, |_, _| ());
        let expectation = Expectation::from_model(&model).unwrap();
        assert_eq!(expectation.source, "faulty 1.0");
        let comparison = compare(BackendName::REFERENCE, &model, &expectation, Tolerance::Float32).unwrap();
        assert!(comparison.passed && comparison.not_compared.is_empty(), "{comparison:#?}");
        assert!(comparison.tensors.iter().all(|tensor| tensor.max_absolute_error == 0.0));
        assert_eq!(comparison.tokens, 14 + 11 + 6);
        assert_eq!(comparison.greedy.is_some(), task == Task::CausalLm);
    }
}

#[test]
fn another_model_does_not_meet_it() {
    let expectation = Expectation::from_model(&faulty_model("tiny", Task::CausalLm, |_, _| ())).unwrap();
    let other = faulty_model("yarn-rope", Task::CausalLm, |_, _| ());
    let comparison = compare(BackendName::REFERENCE, &other, &expectation, Tolerance::Float32).unwrap();
    assert!(!comparison.passed);
    assert!(comparison.tensors.iter().all(|tensor| !tensor.passed), "{comparison:#?}");
    assert!(!comparison.greedy.unwrap().identical);
}

#[test]
fn sample_tokens_are_padded_on_the_left_and_never_the_padding_token() {
    for fixture in ["tiny", "classifier", "jetmoe-mini-classifier"] {
        let checkpoint = Checkpoint::open(fixtures::checkpoint(fixture)).unwrap();
        let config = checkpoint.config();
        let batch = sample_batch(config).unwrap();
        assert_eq!(batch, sample_batch(config).unwrap());
        for (row, length) in [14, 11, 6].into_iter().enumerate() {
            let mask = Array1::from_shape_fn(14, |column| column + length >= 14);
            assert_eq!(batch.mask().row(row), mask);
        }
        let padding = config.pad_token_id.unwrap_or(0);
        for (id, counts) in batch.ids().iter().zip(batch.mask()) {
            assert!((*id as usize) < config.vocab_size);
            assert_eq!(*id == padding, !counts);
        }
    }
}

#[test]
fn a_classifier_without_a_padding_token_gets_one_sequence() {
    let checkpoint = Checkpoint::open(fixtures::checkpoint("classifier")).unwrap();
    let mut config = checkpoint.config().clone();
    config.pad_token_id = None;
    config.max_position_embeddings = 9;
    let batch = sample_batch(&config).unwrap();
    assert_eq!(batch.ids().dim(), (1, 9));
    assert!(batch.mask().iter().all(|counts| *counts));
}

#[test]
fn the_best_of_equal_values_is_the_first_and_no_number_is_never_best() {
    assert_eq!(best([1.0, 3.0, 3.0].into_iter()), 1);
    assert_eq!(best([f32::NAN, 1.0, f32::NAN].into_iter()), 1);
}

#[test]
fn logits_of_the_cached_step_belong_to_the_most_probable_tokens() {
    let model = faulty_model("tiny", Task::CausalLm, |_, _| ());
    let expectation = Expectation::from_model(&model).unwrap();
    let (tokens, logits) = expectation.next.unwrap();
    assert_eq!(logits.shape(), [3, 1, 131]);
    for (token, continuation) in tokens.iter().zip(expectation.greedy.unwrap()) {
        assert_eq!(*token, continuation[0]);
    }
    assert!(expectation.tensors.contains_key(&OutputName::PresentKey(1)));
}
