//! What a classifier's scores are, against transformers' text-classification pipeline.

use std::fs;
use std::path::Path;

use jetmoe::artifact::Task;
use jetmoe::conformance::Tolerance;
use jetmoe::rt::{Classification, ClassificationRequest, ClassifierInput, TextClassifier, Tokenizer};
use jetmoe_testing::{CheckpointDraft, fixtures};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::fixtures::{Export, temporary_folder};
use crate::subject::Subject;
use crate::suite::{Suite, measured, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    // the graphs of a classifier differ by backend in other tests; here it is what becomes of the logits
    if subject.is_first() || subject.is_reference() {
        suite.add_group(subject, "classifications", named![scores_are_those_of_the_pipeline]);
    }
}

pub(crate) fn add_general_tests(suite: &mut Suite) {
    suite.add_general_group("classifications", named![inputs_are_encoded_and_truncated_as_in_transformers]);
}

/// `classifications.json`, see `make_classifications.py`.
#[derive(Debug, Deserialize)]
struct Table {
    inputs: Vec<Input>,
    models: Vec<ChangedModel>,
    encodings: Vec<ChangedTokenizer>,
}

#[derive(Debug, Deserialize)]
struct Input {
    text: String,
    text_pair: Option<String>,
}

impl Input {
    fn to_classifier_input(&self) -> ClassifierInput {
        match &self.text_pair {
            Some(text_pair) => ClassifierInput::from((&self.text, text_pair)),
            None => ClassifierInput::from(&self.text),
        }
    }
}

#[derive(Debug, Deserialize)]
struct ChangedModel {
    config: Map<String, Value>,
    labels: usize,
    results: Vec<Expected>,
}

#[derive(Debug, Deserialize)]
struct Expected {
    label: String,
    score: f64,
    scores: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct ChangedTokenizer {
    post_processor: Option<Value>,
    truncation_side: String,
    cases: Vec<Encoding>,
}

#[derive(Debug, Deserialize)]
struct Encoding {
    #[serde(flatten)]
    input: Input,
    max_tokens: Option<usize>,
    ids: Vec<u32>,
}

const MODEL: &str = "jetmoe-mini-classifier";
const HEAD: &str = "score.weight";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

fn table() -> Table {
    let file = fixtures::folder().join("classifications/classifications.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// The classifier with another configuration and another head.
fn write_changed(changed: &ChangedModel, folder: &Path) {
    let source = fixtures::checkpoint(MODEL);
    let mut draft = CheckpointDraft::read(&source);
    draft.config.extend(changed.config.clone());
    let mut rows = [0, 1].map(|row| draft.row(HEAD, row).to_vec()).to_vec();
    rows.push(rows[0].iter().zip(&rows[1]).map(|(first, second)| first + second).collect());
    let head = draft.tensors.get_mut(HEAD).unwrap();
    head.shape[0] = changed.labels;
    head.values = rows[..changed.labels].concat();
    draft.write_into(folder);
    for file in [TOKENIZER, TOKENIZER_CONFIG] {
        fs::copy(source.join(file), folder.join(file)).unwrap();
    }
}

/// Largest difference of a score: that of the logits, for a probability a quarter of it.
fn largest_difference(found: &Classification, expected: &Expected) -> f64 {
    assert_eq!(found.scores.len(), expected.scores.len());
    let scores = found.scores.iter().zip(&expected.scores);
    let pairs = scores.chain([(&found.score, &expected.score)]);
    pairs.map(|(found, expected)| (f64::from(*found) - expected).abs()).fold(0.0, f64::max)
}

fn scores_are_those_of_the_pipeline(subject: Subject) {
    let Table { inputs, models, .. } = table();
    let mut largest = 0.0_f64;
    for changed in &models {
        let what = format!("{MODEL} with {:?} and {} labels", changed.config, changed.labels);
        let export = Export::of_temporary(what.clone(), Some(Task::SequenceClassification), |folder| {
            write_changed(changed, folder.path());
        });
        // the artifact has to carry what the checkpoint says
        let classifier = TextClassifier::new(&export.single_threaded_model(subject)).unwrap();
        let request = ClassificationRequest::batch(inputs.iter().map(Input::to_classifier_input));
        let results = classifier.classify(&request).unwrap();
        assert_eq!(results.len(), changed.results.len());
        for ((found, expected), input) in results.iter().zip(&changed.results).zip(&inputs) {
            assert_eq!(found.label, expected.label, "{what}, {input:?}");
            largest = largest.max(largest_difference(found, expected));
        }
    }
    measured(&format!("{subject}: {largest:.1e} from the pipeline"));
    assert!(largest <= Tolerance::Float32.logits_absolute(), "{largest}");
}

fn inputs_are_encoded_and_truncated_as_in_transformers() {
    let source = fixtures::checkpoint(MODEL);
    let read =
        |file: &str| -> Value { serde_json::from_slice(&fs::read(source.join(file)).unwrap()).unwrap() };
    for changed in table().encodings {
        let folder = temporary_folder();
        let (mut tokenizer, mut config) = (read(TOKENIZER), read(TOKENIZER_CONFIG));
        if let Some(post_processor) = &changed.post_processor {
            tokenizer["post_processor"] = post_processor.clone();
        }
        config["truncation_side"] = changed.truncation_side.clone().into();
        fs::write(folder.path().join(TOKENIZER), tokenizer.to_string()).unwrap();
        fs::write(folder.path().join(TOKENIZER_CONFIG), config.to_string()).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap().unwrap();
        for Encoding { input, max_tokens, ids } in &changed.cases {
            let encode =
                |max_tokens| tokenizer.encode_input(&input.text, input.text_pair.as_deref(), max_tokens);
            let (found, whole) = (encode(*max_tokens).unwrap(), encode(None).unwrap());
            assert_eq!(found.ids, *ids, "{input:?}, {max_tokens:?} tokens, {changed:?}");
            assert_eq!(found.untruncated, whole.ids.len());
            assert_eq!(found.is_truncated(), ids.len() < whole.ids.len());
        }
        // fewer tokens than the special ones
        assert_eq!(tokenizer.encode_input("In the beginning", Some("God"), Some(1)).unwrap().ids, [1]);
    }
}
