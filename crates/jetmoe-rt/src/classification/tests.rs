use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::CancellationToken;
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
    TextClassifier::new(&model.load()).unwrap().classify(&request(texts, options))
}

fn request(texts: &[&str], options: &ClassificationOptions) -> ClassificationRequest {
    ClassificationRequest::batch(texts).with_options(options.clone())
}

#[test]
fn the_most_probable_class_is_named_with_its_softmax() {
    let model = FakeModel::classifier(|_| vec![1.0, 3.0]);
    let result = classify(model, &["In the beginning"], &ClassificationOptions::default()).unwrap().remove(0);
    assert_eq!((result.label.as_str(), result.label_index), ("New Testament", 1));
    assert_eq!(result.logits, [1.0, 3.0]);
    let expected = 1.0 / (1.0 + (-2.0_f32).exp());
    assert!((result.score - expected).abs() <= f32::EPSILON);
    assert_eq!(result.function, ClassificationFunction::Softmax);
    assert!((result.scores[0] - (1.0 - expected)).abs() <= f32::EPSILON);
    assert_eq!(result.scores[1], result.score);
}

/// The rows of the table of [`ClassificationFunction::of_config`]; `conformance` compares the values with transformers.
#[test]
fn the_problem_type_and_the_number_of_labels_decide_what_a_score_is() {
    use ClassificationFunction::{None as Logits, Sigmoid, Softmax};
    use ProblemType::{MultiLabelClassification, Regression, SingleLabelClassification};
    for (problem_type, one_label, more_labels) in [
        (Some(Regression), Logits, Logits),
        (Some(MultiLabelClassification), Sigmoid, Sigmoid),
        (Some(SingleLabelClassification), Sigmoid, Softmax),
        (None, Sigmoid, Softmax),
    ] {
        for (labels, expected) in [(1, one_label), (3, more_labels)] {
            let mut model = FakeModel::classifier(move |_| [0.5, -2.0, 3.0][..labels].to_vec());
            model.config.problem_type = problem_type;
            model.config.labels = (0..labels).map(|label| format!("label {label}")).collect();
            let result = classify(model, &["a"], &ClassificationOptions::default()).unwrap().remove(0);
            assert_eq!(result.function, expected, "{problem_type:?}, {labels} labels");
            assert_eq!(result.label_index, if labels == 1 { 0 } else { 2 });
            let score = result.scores[0];
            match expected {
                Logits => assert_eq!(result.scores, result.logits),
                Sigmoid => assert!((score - 1.0 / (1.0 + (-0.5_f32).exp())).abs() <= f32::EPSILON, "{score}"),
                Softmax => assert!((result.scores.iter().sum::<f32>() - 1.0).abs() <= f32::EPSILON),
            }
        }
    }
    let options = ClassificationOptions::default().with_function(Logits);
    let model = FakeModel::classifier(|_| vec![1.0, 3.0]);
    assert_eq!(classify(model, &["a"], &options).unwrap()[0].score, 3.0);
}

#[test]
fn a_pair_is_joined_by_the_post_processor() {
    // the first token and the number of tokens
    let model = || FakeModel::classifier(|seen| vec![seen.len() as f32, seen[seen.len() - 2] as f32]);
    let classifier = TextClassifier::new(&model().load()).unwrap();
    let tokens = |text: &str| fake::tokenizer().encode(text, false).unwrap();
    let (query, passage) = ("Who made the heaven?", "In the beginning God created the heaven");
    let results = classifier.classify(&ClassificationRequest::batch([(query, passage)])).unwrap();
    // <s> query <s> passage
    let expected = 2 + tokens(query).len() + tokens(passage).len();
    assert_eq!((results[0].tokens, results[0].logits[0]), (expected, expected as f32));
    let last_but_one = tokens(passage)[tokens(passage).len() - 2];
    assert_eq!(results[0].logits[1], last_but_one as f32);
    let half_empty = ClassificationRequest::batch([("", passage), (query, "")]);
    assert!(classifier.check(&half_empty).is_ok());
    let error = classifier.check(&ClassificationRequest::new(("", ""))).unwrap_err();
    assert!(matches!(error, Error::EmptyPrompt { index: 0 }), "{error}");
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
    let results = classify(model, &[text, "Amen"], &options).unwrap();
    // 4 tokens, the first of them <s>
    assert_eq!(results[0].logits, [4.0, 1.0]);
    assert_eq!((results[0].tokens, results[0].truncated), (4, true));
    assert_eq!((results[1].tokens < 4, results[1].truncated), (true, false));
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
    let classifier = TextClassifier::new(&hashed().load()).unwrap();
    let checked = classifier.check(&ClassificationRequest::batch(["a", ""])).unwrap_err();
    assert_eq!(checked.to_string(), error.to_string());
    assert!(classifier.check(&ClassificationRequest::new("a")).is_ok());
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
fn a_class_without_a_name_has_a_numbered_label() {
    let file = fake::fixture("jetmoe-mini-classifier").join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    config["id2label"] = serde_json::json!({ "0": "Old Testament", "7": "of another model" });
    let mut model = FakeModel::classifier(|_| vec![1.0, 3.0]);
    model.config = ModelConfig::from_json(&config).unwrap();
    let result = classify(model, &["a"], &ClassificationOptions::default()).unwrap().remove(0);
    assert_eq!((result.label.as_str(), result.label_index), ("LABEL_1", 1));
}

#[test]
fn logits_without_a_label_are_an_error() {
    for count in [0, 1, 3] {
        let model = FakeModel::classifier(move |_| vec![0.5; count]);
        let classifier = TextClassifier::new(&model.load()).unwrap();
        let error = classifier.classify_each(&ClassificationRequest::new("a")).unwrap_err();
        assert!(matches!(error, Error::OutputShape { .. }), "{count}: {error}");
    }
    let mut model = FakeModel::classifier(|_| Vec::new());
    model.config.labels.clear();
    let error = classify(model, &["a"], &ClassificationOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Logits { .. }), "{error}");
}

#[test]
fn a_language_model_or_a_model_without_a_tokenizer_does_not_classify() {
    let language_model = FakeModel::scripted(1, vec![]).load();
    assert!(matches!(TextClassifier::new(&language_model), Err(Error::WrongTask { .. })));
    let mut model = hashed();
    model.tokenizer = None;
    assert!(matches!(TextClassifier::new(&model.load()), Err(Error::NoTokenizer)));
}

#[test]
fn a_text_that_cannot_be_classified_does_not_lose_the_others() {
    let mut model = FakeModel::classifier(|seen| vec![if seen.len() == 4 { f32::NAN } else { 1.0 }, 0.0]);
    model.config.max_position_embeddings = 6;
    let steps = Arc::clone(&model.steps);
    let classifier = TextClassifier::new(&model.load()).unwrap();
    let long = "And the LORD spake unto Moses, saying";
    let texts = ["Amen", "", long, "Moses"];
    let request = request(&texts, &ClassificationOptions::default());
    let results = classifier.classify_each(&request).unwrap();
    assert_eq!(results[0].as_ref().unwrap().label_index, 0);
    assert!(matches!(results[1], Err(Error::EmptyPrompt { index: 1 })));
    assert!(matches!(results[2], Err(Error::TooLong { index: 2, tokens: 7.., limit: 6 })));
    assert!(results[3].is_ok());
    assert_eq!(steps.load(Ordering::Relaxed), 1);
    // logits that are NaN are those of one text
    let nan = ["Amen", "And the LORD"].map(|text| fake::tokenizer().encode(text, true).unwrap().len());
    assert_eq!(nan[1], 4, "the test needs a text of four tokens: {nan:?}");
    let results = classifier.classify_each(&ClassificationRequest::batch(["And the LORD", "Amen"])).unwrap();
    let error = results[0].as_ref().unwrap_err();
    assert!(matches!(error, Error::Logits { .. }) && error.to_string().contains("text 0"), "{error}");
    assert!(results[1].is_ok());
    let invalid = ClassificationRequest::new("a").with_options(in_batches_of(0));
    assert!(matches!(classifier.classify_each(&invalid), Err(Error::Option { option: "batch_size", .. })));
}

#[test]
fn a_failure_of_the_backend_fails_the_call() {
    let mut model = hashed();
    model.fails_at = Some(1);
    let classifier = TextClassifier::new(&model.load()).unwrap();
    assert!(matches!(classifier.classify_each(&ClassificationRequest::new("a")), Err(Error::Backend(_))));
}

#[test]
fn a_cancelled_classification_keeps_what_was_classified() {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let model = FakeModel::classifier(move |seen| {
        cancelled.cancel();
        fake::hashed(seen, 2)
    });
    let classifier = TextClassifier::new(&model.load()).unwrap();
    let texts = ["And the LORD spake unto Moses", "Amen", "The sons of Levi"];
    let request = request(&texts, &in_batches_of(1)).with_cancellation(&token);
    let results = classifier.classify_each(&request).unwrap();
    let done: Vec<bool> = results.iter().map(Result::is_ok).collect();
    // the shortest text is computed first
    assert_eq!(done, [false, true, false]);
    assert!(matches!(results[0], Err(Error::Cancelled)));
    assert!(matches!(classifier.classify(&request).unwrap_err(), Error::Cancelled));
}

#[test]
fn a_text_with_too_many_bytes_does_not_lose_the_others() {
    let model = hashed().load().with_max_text_bytes(10);
    let classifier = TextClassifier::new(&model).unwrap();
    let options = ClassificationOptions::default().with_max_tokens(2);
    let inputs = [("In the", "begin"), ("In", "the")];
    let request = ClassificationRequest::batch(inputs).with_options(options);
    let results = classifier.classify_each(&request).unwrap();
    assert!(matches!(&results[0], Err(Error::TextTooLong { index: 0, bytes: 11, limit: 10, .. })));
    assert!(results[1].as_ref().is_ok_and(|result| result.truncated), "{results:?}");
}

#[test]
fn the_text_of_a_special_token_is_text_on_request() {
    // the number of tokens and the last one
    let model = || FakeModel::classifier(|seen| vec![seen.len() as f32, seen[seen.len() - 1] as f32]);
    let tokenizer = fake::tokenizer();
    let end = tokenizer.token_id("</s>").unwrap();
    let options = ClassificationOptions::default();
    let split = options.clone().with_split_special_tokens(true);
    let special = classify(model(), &["In the</s>"], &options).unwrap().remove(0);
    assert_eq!(special.logits[1], end as f32);
    let text = classify(model(), &["In the</s>"], &split).unwrap().remove(0);
    let expected = tokenizer.encode_split("In the</s>", true).unwrap();
    assert!(!expected.contains(&end));
    assert_eq!(text.logits, [expected.len() as f32, expected[expected.len() - 1] as f32]);
    assert_eq!(
        classify(model(), &["In the"], &split).unwrap(),
        classify(model(), &["In the"], &options).unwrap()
    );
    let pair = ClassificationRequest::new(("</s>", "</s>")).with_options(split);
    let pair = TextClassifier::new(&model().load()).unwrap().classify(&pair).unwrap();
    assert_eq!(pair[0].tokens, 2 + 2 * tokenizer.encode_split("</s>", false).unwrap().len());
}
