use std::io::Write;

use jetmoe_artifact::OutputName;
use jetmoe_rt::TensorMap;
use tempfile::NamedTempFile;

use super::*;
use crate::faulty::{faulty_model, faulty_model_with};

const MINI: &str = "jetmoe-mini";
const CLASSIFIER: &str = "jetmoe-mini-classifier";

/// A sum over the vocabulary in double precision, which the reference's logits do not touch.
const SAME: f64 = 1e-6;

fn file(lines: &[&str]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(lines.join("\n").as_bytes()).unwrap();
    file
}

fn run(model: &Model, lines: &[&str], options: &EvaluationOptions) -> Result<Quality> {
    evaluate(model, None, file(lines).path(), options, &mut |_, _| {})
}

fn mini(fault: impl Fn(&mut TensorMap) + Send + Sync + 'static) -> Model {
    faulty_model(MINI, Task::CausalLm, move |_, tensors| fault(tensors))
}

fn classifier(fault: impl Fn(&mut TensorMap) + Send + Sync + 'static) -> Model {
    faulty_model(CLASSIFIER, Task::SequenceClassification, move |_, tensors| fault(tensors))
}

fn fill_logits(value: f32) -> impl Fn(&mut TensorMap) + Send + Sync {
    move |tensors| {
        if let Some(logits) = tensors.get_mut(&OutputName::Logits) {
            logits.fill(value);
        }
    }
}

fn language_model(quality: Quality) -> LanguageModelQuality {
    match quality {
        Quality::CausalLm(quality) => quality,
        other => panic!("{other:?}"),
    }
}

fn classification(quality: Quality) -> ClassificationQuality {
    match quality {
        Quality::SequenceClassification(quality) => quality,
        other => panic!("{other:?}"),
    }
}

const TEXT: &str = r#"{"text": "In the beginning God created the heaven and the earth."}"#;

#[test]
fn a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary() {
    for constant in [0.0, 80.0] {
        let model = mini(fill_logits(constant));
        let quality = language_model(run(&model, &[TEXT], &EvaluationOptions::default()).unwrap());
        let vocabulary = model.config().vocab_size as f64;
        assert!((quality.perplexity / vocabulary - 1.0).abs() <= SAME, "{quality:?}");
        assert!((quality.negative_log_likelihood - vocabulary.ln()).abs() <= SAME);
        // of equal tokens the first is the best, and it does not occur
        assert_eq!(quality.next_token_accuracy, 0.0);
    }
}

#[test]
fn every_token_of_a_window_but_the_first_is_predicted() {
    let model = mini(|_| ());
    let tokens =
        model.tokenizer().unwrap().encode("In the beginning God created the heaven and the earth.", true);
    let tokens = tokens.unwrap().len();
    assert!(tokens > 8, "{tokens}");
    for window in [2, 3, 4, 256] {
        let options = EvaluationOptions { window, ..EvaluationOptions::default() };
        let quality = language_model(run(&model, &[TEXT], &options).unwrap());
        // a last window of one token predicts nothing
        assert_eq!(quality.predicted_tokens, tokens - tokens.div_ceil(window), "windows of {window}");
    }
    let two = language_model(run(&model, &[TEXT, "", TEXT], &EvaluationOptions::default()).unwrap());
    assert_eq!(two.predicted_tokens, 2 * (tokens - 1));
}

#[test]
fn logits_that_are_no_numbers_give_no_perplexity() {
    let model = mini(fill_logits(f32::NAN));
    let quality = language_model(run(&model, &[TEXT], &EvaluationOptions::default()).unwrap());
    assert!(quality.perplexity.is_nan(), "{quality:?}");
}

#[test]
fn labels_are_numbers_or_names_and_texts_without_one_are_not_counted() {
    let lines = [
        r#"{"text": "And the LORD spake unto Moses, saying, Speak unto the children of Israel", "label": 0}"#,
        r#"{"text": "And the LORD spake unto Moses, saying, Speak unto the children of Israel", "label": 1}"#,
        r#"{"text": "Paul, an apostle of Jesus Christ by the will of God, to the saints", "label": 1}"#,
        r#"{"text": "Paul, an apostle of Jesus Christ"}"#,
    ];
    let model = classifier(|_| ());
    let quality = classification(run(&model, &lines, &EvaluationOptions::default()).unwrap());
    assert_eq!((quality.passages, quality.accuracy), (3, Some(2.0 / 3.0)));
    assert_eq!(quality.max_logit_error, None);

    let labels = &model.config().labels;
    let named = lines.map(|line| {
        line.replace("\"label\": 0", &format!("\"label\": {:?}", labels[0]))
            .replace("\"label\": 1", &format!("\"label\": {:?}", labels[1]))
    });
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    assert_eq!(classification(run(&model, &named, &EvaluationOptions::default()).unwrap()), quality);
}

/// A classifier that gives the first two logits of each text, with another configuration.
fn classifier_of(problem_type: Option<&str>, labels: usize, logits: [f32; 2]) -> Model {
    faulty_model_with(
        CLASSIFIER,
        Task::SequenceClassification,
        |config| {
            config.problem_type = problem_type.map(|name| name.parse().unwrap());
            config.labels = (0..labels).map(|label| format!("l{label}")).collect();
        },
        move |_, tensors| {
            let row = ndarray::Array2::from_shape_fn((1, labels), |(_, label)| logits[label]);
            tensors.insert(OutputName::Logits, row.into_dyn());
        },
    )
}

#[test]
fn more_logits_than_labels_are_an_error() {
    let model = classifier(|tensors| {
        tensors.insert(OutputName::Logits, ndarray::Array2::<f32>::zeros((1, 3)).into_dyn());
    });
    let line = r#"{"text": "a", "label": 0}"#;
    let error = run(&model, &[line], &EvaluationOptions::default()).unwrap_err().to_string();
    assert!(error.contains("logits") && error.contains("[1, 3]"), "{error}");
}

#[test]
fn of_several_labels_any_number_can_be_correct() {
    let model = classifier_of(Some("multi_label_classification"), 2, [0.5, -0.5]);
    let lines = [
        r#"{"text": "a", "label": ["l0"]}"#,
        r#"{"text": "a", "label": [0, 1]}"#,
        r#"{"text": "a", "label": []}"#,
        r#"{"text": "a", "label": "l0"}"#,
    ];
    let quality = classification(run(&model, &lines, &EvaluationOptions::default()).unwrap());
    assert_eq!((quality.passages, quality.accuracy), (4, Some(0.5)));
    // four are predicted, four expected, three of them the same
    assert_eq!((quality.f1, quality.mean_squared_error), (Some(0.75), None));
    assert_line_refused(&model, &[r#"{"text": "a", "label": ["l2"]}"#], 1, "is none of the model's: l0, l1");
}

#[test]
fn the_only_label_is_the_case_or_not() {
    let model = classifier_of(None, 1, [0.5, 0.0]);
    let lines = [
        r#"{"text": "a", "label": 1}"#,
        r#"{"text": "a", "label": true}"#,
        r#"{"text": "a", "label": 0.0}"#,
        r#"{"text": "a", "label": "l0"}"#,
        r#"{"text": "a", "label": false}"#,
    ];
    let quality = classification(run(&model, &lines, &EvaluationOptions::default()).unwrap());
    assert_eq!((quality.passages, quality.accuracy), (5, Some(0.6)));
    assert_line_refused(&model, &[r#"{"text": "a", "label": 2}"#], 1, "is none of the model's: l0");
}

#[test]
fn a_regression_is_measured_by_its_squared_error() {
    let model = classifier_of(Some("regression"), 1, [0.5, 0.0]);
    let lines = [r#"{"text": "a", "label": 0.0}"#, r#"{"text": "a", "text_pair": "b", "label": [1.5]}"#];
    let quality = classification(run(&model, &lines, &EvaluationOptions::default()).unwrap());
    assert_eq!((quality.accuracy, quality.f1, quality.mean_squared_error), (None, None, Some(0.625)));
    let two = classifier_of(Some("regression"), 2, [0.5, 1.0]);
    let lines = [r#"{"text": "a", "label": [0.5, 3.0]}"#];
    let quality = classification(run(&two, &lines, &EvaluationOptions::default()).unwrap());
    assert_eq!(quality.mean_squared_error, Some(2.0));
    for label in ["1.0", "[1.0]", "\"l0\""] {
        let line = format!(r#"{{"text": "a", "label": {label}}}"#);
        assert_line_refused(&two, &[&line], 1, "is not the value of a regression, expected 2 numbers");
    }
}

#[test]
fn the_largest_difference_from_the_logits_in_the_file_is_measured() {
    let lines = [
        r#"{"text": "a", "label": 0, "logits": [1.0, -2.0]}"#,
        r#"{"text": "b", "label": 0, "logits": [1.5, -2.0]}"#,
    ];
    let model = classifier(|tensors| {
        if let Some(logits) = tensors.get_mut(&OutputName::Logits) {
            logits[[0, 0]] = 1.0;
            logits[[0, 1]] = -2.0;
        }
    });
    let quality = classification(run(&model, &lines, &EvaluationOptions::default()).unwrap());
    assert_eq!(quality.max_logit_error, Some(0.5));
}

#[track_caller]
fn assert_line_refused(model: &Model, lines: &[&str], line: usize, why: &str) {
    let error = run(model, lines, &EvaluationOptions::default()).unwrap_err();
    let Error::Line { line: found, message, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*found, line);
    assert!(message.contains(why), "{message}");
    assert!(error.to_string().contains(&format!(":{line}: ")), "{error}");
}

#[test]
fn a_line_that_cannot_be_used_is_named_by_its_number() {
    let model = classifier(|_| ());
    assert_line_refused(&model, &[TEXT, "", "{"], 3, "expected a JSON object with a field \"text\"");
    assert_line_refused(&model, &[r#"{"label": 1}"#], 1, "missing field `text`");
    let labels = model.config().labels.join(", ");
    for label in ["2", "-1", "0.5", "\"Apocrypha\"", "[0]"] {
        let line = format!(r#"{{"text": "a", "label": {label}}}"#);
        assert_line_refused(&model, &[&line], 1, &format!("is none of the model's: {labels}"));
    }
    let three = r#"{"text": "a", "label": 1, "logits": [1, 2, 3]}"#;
    assert_line_refused(&model, &[three], 1, "3 logits, the model gives 2");
}

#[test]
fn a_file_with_nothing_to_evaluate_is_refused() {
    let nothing = |model: &Model, lines: &[&str]| {
        let error = run(model, lines, &EvaluationOptions::default()).unwrap_err();
        assert!(matches!(error, Error::NothingToEvaluate { .. }), "{error:?}");
    };
    nothing(&mini(|_| ()), &[]);
    nothing(&mini(|_| ()), &["", " "]);
    // one token, of which nothing is predicted
    nothing(&mini(|_| ()), &[r#"{"text": ""}"#]);
    nothing(&classifier(|_| ()), &[TEXT]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let path = Path::new("/nowhere/eval.jsonl");
    let error =
        evaluate(&mini(|_| ()), None, path, &EvaluationOptions::default(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, Error::Io { action: "read", .. }));
    assert!(error.to_string().contains("/nowhere/eval.jsonl"), "{error}");
}

#[test]
fn a_backbone_predicts_nothing_and_a_model_without_tokenizer_reads_nothing() {
    let backbone = faulty_model("tiny", Task::Backbone, |_, _| ());
    let error = run(&backbone, &[TEXT], &EvaluationOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NotEvaluable { task: Task::Backbone }), "{error:?}");
    let silent = faulty_model("tiny", Task::CausalLm, |_, _| ());
    let error = run(&silent, &[TEXT], &EvaluationOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Model(jetmoe_rt::Error::NoTokenizer)), "{error:?}");
}

#[test]
fn progress_counts_lines() {
    let mut steps = Vec::new();
    let file = file(&[TEXT, TEXT]);
    evaluate(&mini(|_| ()), None, file.path(), &EvaluationOptions::default(), &mut |done, lines| {
        steps.push((done, lines))
    })
    .unwrap();
    assert_eq!(steps, [(1, 2), (2, 2)]);
}

fn against(model: &Model, baseline: &Model) -> Result<Difference> {
    let options = EvaluationOptions::default();
    let quality = evaluate(model, Some(baseline), file(&[TEXT]).path(), &options, &mut |_, _| {})?;
    Ok(language_model(quality).difference.unwrap())
}

#[test]
fn a_model_does_not_differ_from_itself() {
    let difference = against(&mini(|_| ()), &mini(|_| ())).unwrap();
    assert!(difference.kl_divergence.abs() < SAME, "{difference:?}");
    assert_eq!(difference.top1_agreement, 1.0);
    assert_eq!(difference.routers.len(), 4);
    for router in difference.routers {
        assert_eq!((router.attention, router.mlp), (1.0, 1.0));
    }
}

#[test]
fn a_model_that_knows_nothing_differs_by_what_the_other_knows() {
    let difference = against(&mini(fill_logits(0.0)), &mini(|_| ())).unwrap();
    // ln(vocabulary) less the entropy of the baseline's predictions
    assert!(difference.kl_divergence > 1.0 && difference.kl_divergence < 2048.0_f64.ln(), "{difference:?}");
    let itself = language_model(run(&mini(|_| ()), &[TEXT], &EvaluationOptions::default()).unwrap());
    assert!((difference.baseline_perplexity / itself.perplexity - 1.0).abs() < SAME);
}

#[test]
fn a_changed_router_is_seen_in_its_layer_only() {
    let changed = mini(|tensors| {
        if let Some(logits) = tensors.get_mut(&OutputName::MlpRouterLogits(2)) {
            logits.mapv_inplace(|score| -score);
        }
    });
    let difference = against(&changed, &mini(|_| ())).unwrap();
    for router in difference.routers {
        assert_eq!(router.attention, 1.0);
        assert_eq!(router.mlp < 0.5, router.layer == 2, "{router:?}");
    }
}

#[test]
fn a_baseline_of_another_kind_is_refused() {
    let error = against(&mini(|_| ()), &classifier(|_| ())).unwrap_err();
    assert!(error.to_string().contains("a sequence-classification model predicts no tokens"), "{error}");
}
