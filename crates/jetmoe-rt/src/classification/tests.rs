use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::fake::{self, FakeModel};

/// Logits that depend on every token of a text.
fn hashed() -> FakeModel {
    FakeModel::classifier(|seen| fake::hashed(seen, 2))
}

fn in_batches_of(batch_size: usize) -> ClassificationOptions {
    ClassificationOptions { batch_size, ..ClassificationOptions::default() }
}

fn classify(
    model: FakeModel,
    texts: &[&str],
    options: &ClassificationOptions,
) -> Result<Vec<Classification>> {
    TextClassifier::new(&model.load()).unwrap().classify(texts, options)
}

#[test]
fn the_most_probable_class_is_named_with_its_softmax() {
    let model = FakeModel::classifier(|_| vec![1.0, 3.0]);
    let result = classify(model, &["In the beginning"], &ClassificationOptions::default()).unwrap().remove(0);
    assert_eq!((result.label.as_str(), result.label_index), ("New Testament", 1));
    assert_eq!(result.logits, [1.0, 3.0]);
    let expected = 1.0 / (1.0 + (-2.0_f32).exp());
    assert!((result.probability - expected).abs() <= f32::EPSILON);
}

#[test]
fn a_text_gets_the_same_class_alone_and_in_a_batch() {
    let texts = ["Moses", "And the LORD said unto Moses", "The sons of Levi", "Blessed are the meek", "Amen"];
    let alone = classify(hashed(), &texts, &in_batches_of(1)).unwrap();
    for batch_size in [2, 3, 16] {
        assert_eq!(classify(hashed(), &texts, &in_batches_of(batch_size)).unwrap(), alone);
    }
    assert_ne!(alone[0].logits, alone[1].logits);
}

#[test]
fn without_a_padding_token_texts_are_computed_one_by_one() {
    let mut model = hashed();
    model.config.pad_token_id = None;
    let steps = Arc::clone(&model.steps);
    classify(model, &["a", "b", "c"], &in_batches_of(8)).unwrap();
    assert_eq!(steps.load(Ordering::Relaxed), 3);
}

#[test]
fn a_long_text_is_truncated_on_request() {
    let mut model = FakeModel::classifier(|seen| vec![seen.len() as f32, seen[0] as f32]);
    model.config.max_position_embeddings = 6;
    let text = "And the LORD spake unto Moses, saying";
    let options = ClassificationOptions { max_tokens: Some(4), ..ClassificationOptions::default() };
    // 4 tokens, the first of them <s>
    assert_eq!(classify(model, &[text], &options).unwrap()[0].logits, [4.0, 1.0]);
}

#[test]
fn a_text_longer_than_the_positions_is_an_error() {
    for max_tokens in [None, Some(7)] {
        let mut model = hashed();
        model.config.max_position_embeddings = 6;
        let options = ClassificationOptions { max_tokens, ..ClassificationOptions::default() };
        let error =
            classify(model, &["Moses", "And the LORD spake unto Moses, saying"], &options).unwrap_err();
        assert!(matches!(error, Error::TooLong { index: 1, tokens: 7.., limit: 6 }), "{error}");
    }
}

#[test]
fn an_empty_text_is_refused_by_number_and_no_text_gives_no_class() {
    let error = classify(hashed(), &["a", ""], &ClassificationOptions::default()).unwrap_err();
    assert!(matches!(error, Error::EmptyPrompt { index: 1 }));
    assert_eq!(classify(hashed(), &[], &ClassificationOptions::default()).unwrap(), []);
}

#[test]
fn options_of_zero_are_refused_by_name() {
    let cut = ClassificationOptions { max_tokens: Some(0), ..ClassificationOptions::default() };
    for (options, name) in [(in_batches_of(0), "batch_size"), (cut, "max_tokens")] {
        let error = classify(hashed(), &["a"], &options).unwrap_err();
        assert!(matches!(error, Error::Option { option, .. } if option == name));
    }
}

#[test]
fn nan_logits_are_an_error() {
    let model = FakeModel::classifier(|_| vec![f32::NAN, 0.0]);
    let error = classify(model, &["a"], &ClassificationOptions::default()).unwrap_err();
    assert!(error.to_string().contains("text 0"), "{error}");
}

#[test]
fn another_number_of_classes_than_the_configuration_names_is_an_error() {
    let model = FakeModel::classifier(|_| vec![0.0, 1.0, 2.0]);
    let error = classify(model, &["a"], &ClassificationOptions::default()).unwrap_err();
    assert!(matches!(error, Error::OutputShape { .. }));
}

#[test]
fn a_language_model_or_a_model_without_a_tokenizer_does_not_classify() {
    let language_model = FakeModel::scripted(1, vec![]).load();
    assert!(matches!(TextClassifier::new(&language_model), Err(Error::WrongTask { .. })));
    let mut model = hashed();
    model.tokenizer = None;
    assert!(matches!(TextClassifier::new(&model.load()), Err(Error::NoTokenizer)));
}
