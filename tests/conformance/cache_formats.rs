//! The formats of the cache that our own operator for attention updates, and graphs of before that operator.

use jetmoe::artifact::{Artifact, CacheFormat, Precision, Profile, WeightPlan};
use jetmoe::checkpoint::Checkpoint;
use jetmoe::conformance::{Verifier, load};
use jetmoe::export::{ExportOptions, export};
use jetmoe::rt::TokenBatch;
use jetmoe_testing::fixtures;
use ndarray::Array2;
use tempfile::TempDir;

use crate::closeness::assert_logits_close;
use crate::fixtures::{Case, temporary_folder};
use crate::perplexity::{PERPLEXITY_SHARE, held_out_perplexity, perplexity};
use crate::precisions::exact_options;
use crate::subject::Subject;
use crate::suite::{Suite, measured, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    if subject.profile != Profile::Native {
        return;
    }
    for format in CacheFormat::ALL {
        suite.add(subject, format!("cache_formats::{format}"), |subject| check(subject, *format));
        suite.add(subject, format!("cache_formats::perplexity::{format}"), |subject| {
            check_perplexity(subject, *format);
        });
    }
    suite.add_group(
        subject,
        "cache_formats",
        named![
            sequences_continue_by_several_tokens_as_alone,
            a_native_graph_with_grouped_query_attention_runs
        ],
    );
}

/// A native graph with a cache in a format.
fn exported(case: &Case, precision: Precision, kv_cache: CacheFormat) -> (TempDir, Artifact) {
    let folder = temporary_folder();
    let exported = case.export();
    let options = exported.options(&folder, Profile::Native, precision, &WeightPlan::default());
    export(&exported.checkpoint, &ExportOptions { kv_cache, ..options }).unwrap();
    let artifact = Artifact::open(folder.path()).unwrap();
    (folder, artifact)
}

/// Compares all results, and what the cache holds, with the reference over the weights of the graph.
fn check(subject: Subject, format: CacheFormat) {
    let mut problems = Vec::new();
    for case in ["tiny", "odd", "top1", "jetmoe-mini"].map(Case::named) {
        for precision in [Precision::Bf16, Precision::Q4] {
            let (_folder, artifact) = exported(&case, precision, format);
            assert_eq!(artifact.manifest().graphs[0].kv_cache, Some(format));
            let export = case.export();
            let checkpoint = Some(&export.checkpoint);
            let options = exact_options(subject.with_precision(precision));
            let comparison =
                Verifier::new(&artifact, checkpoint, options, None).verify(subject.backend).unwrap();
            assert!(comparison.tensors.iter().any(|tensor| tensor.name == "present.*.key"));
            for tensor in &comparison.tensors {
                let error = tensor.median_token_error;
                measured(&format!(
                    "{subject} {}, {precision}, {format}: {} {error:e}",
                    case.name, tensor.name
                ));
            }
            if !comparison.passed {
                problems.push(format!("{}, {precision}: {comparison:#?}", case.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A smaller cache must not cost more quality than activations of 8 bits do.
fn check_perplexity(subject: Subject, format: CacheFormat) {
    let subject = subject.with_precision(Precision::Q4);
    let (_folder, artifact) = exported(&Case::named("jetmoe-mini"), Precision::Q4, format);
    let options = subject.single_threaded_options();
    let found = held_out_perplexity(&load(subject.backend, &artifact, None, &options).unwrap());
    let difference = found / perplexity(subject) - 1.0;
    measured(&format!("{subject}, cache in {format}: perplexity {found}, {difference:+.6}"));
    assert!(difference.abs() < PERPLEXITY_SHARE, "{difference}");
}

/// The operator takes any number of new tokens of every sequence, so that a batch is one call. Each sequence gets what it gets
/// alone.
fn sequences_continue_by_several_tokens_as_alone(subject: Subject) {
    const TEXTS: [[&[u32]; 3]; 3] = [
        [&[5, 6, 7, 8, 9], &[10, 11], &[12, 13, 14]],
        [&[20, 21], &[22, 23, 24, 25], &[26]],
        [&[30, 31, 32, 33], &[], &[34, 35]],
    ];
    let subject = subject.with_precision(Precision::Bf16);
    for format in CacheFormat::ALL {
        let (_folder, artifact) = exported(&Case::named("tiny"), Precision::Bf16, *format);
        let model = load(subject.backend, &artifact, None, &subject.load_options()).unwrap();
        let mut together = model.session().unwrap();
        let mut alone = [(); 3].map(|()| model.session().unwrap());
        for step in 0..3 {
            let new = TEXTS.map(|text| text[step]);
            let found = together.step(&left_padded(&new)).unwrap();
            for (row, tokens) in new.iter().enumerate().filter(|(_, tokens)| !tokens.is_empty()) {
                let expected = alone[row].step(&left_padded(&[tokens])).unwrap();
                let what = format!("sequence {row} in step {step}, cache in {format}");
                assert_logits_close(&what, found.last_logits(row).unwrap(), expected.last_logits(0).unwrap());
            }
        }
        let cache = together.cache().unwrap();
        let columns: Vec<usize> = cache.values().map(|part| part.shape()[2]).collect();
        assert!(columns.iter().all(|columns| *columns == 5 + 4 + 3), "{columns:?}");
    }
}

/// Sequences of several lengths, 0 included.
fn left_padded(sequences: &[&[u32]]) -> TokenBatch {
    let columns = sequences.iter().map(|tokens| tokens.len()).max().unwrap();
    let mut ids = Array2::zeros((sequences.len(), columns));
    let mut mask = Array2::from_elem(ids.dim(), false);
    for (row, tokens) in sequences.iter().enumerate() {
        for (token, column) in tokens.iter().zip(columns - tokens.len()..) {
            (ids[(row, column)], mask[(row, column)]) = (*token, true);
        }
    }
    TokenBatch::masked(ids, mask).unwrap()
}

/// An export of the time when native graphs had ONNX Runtime's operator: it is loaded, and computes what the reference does.
fn a_native_graph_with_grouped_query_attention_runs(subject: Subject) {
    let subject = subject.with_precision(Precision::Q4);
    let artifact = Artifact::open(fixtures::folder().join("artifacts/grouped-query")).unwrap();
    assert_eq!(artifact.manifest().graphs[0].kv_cache, None);
    let checkpoint = Checkpoint::open(Case::named("tiny").folder).unwrap();
    let options = exact_options(subject);
    let comparison =
        Verifier::new(&artifact, Some(&checkpoint), options, None).verify(subject.backend).unwrap();
    assert!(comparison.passed, "{comparison:#?}");
}
