//! What every precision costs in quality: the perplexity of jetmoe-mini on held-out text.

use jetmoe::artifact::{Precision, Profile};
use jetmoe::conformance::{EvaluationOptions, Quality, evaluate, load};
use jetmoe::rt::Model;
use jetmoe_testing::Cache;

use crate::fixtures::Case;
use crate::precisions::plan;
use crate::subject::Subject;
use crate::suite::{Suite, measured, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    // graphs for ONNX Runtime hold the weights of the portable ones
    if subject.is_reference() || subject.profile == Profile::OnnxRuntime {
        return;
    }
    // `quality` measures the most exact precision, to more digits
    for precision in subject.precisions().into_iter().filter(|precision| *precision != subject.precision) {
        suite.add(subject, format!("perplexity::{precision}"), move |subject| {
            check(subject.with_precision(precision));
        });
    }
    if subject.is_first() {
        suite.add_group(
            subject,
            "perplexity",
            named![with_zero_points_and_groups_of_16_the_head_takes_4_bits_too],
        );
    }
}

/// The perplexity on held-out text, measured once for all tests.
pub(crate) fn perplexity(subject: Subject) -> f64 {
    static MEASURED: Cache<String, f64> = Cache::new();
    let mini = Case::named("jetmoe-mini");
    let measure =
        || held_out_perplexity(&mini.export().load_with(subject, &subject.single_threaded_options()));
    *MEASURED.get(format!("{subject} {}", subject.precision), measure)
}

/// The perplexity of a model on the text that jetmoe-mini was not trained on.
pub(crate) fn held_out_perplexity(model: &Model) -> f64 {
    let text = Case::named("jetmoe-mini").folder.join("eval.jsonl");
    let quality = evaluate(model, None, &text, &EvaluationOptions::default(), &mut |_, _| {}).unwrap();
    let Quality::CausalLm(quality) = quality else { panic!("a language model has a perplexity") };
    quality.perplexity
}

/// By how much a perplexity is above that of float32, as transformers measured it.
pub(crate) fn rise(perplexity: f64) -> f64 {
    perplexity / Case::named("jetmoe-mini").json("expected.json")["perplexity"].as_f64().unwrap() - 1.0
}

/// What a precision may cost.
fn allowed(precision: Precision) -> f64 {
    match precision {
        Precision::F32 | Precision::F16 | Precision::Bf16 | Precision::Int8 => 0.001,
        Precision::Q4 | Precision::Q4F16 => 0.018,
    }
}

/// By how much the perplexity of a native graph with quantized weights may differ from that of the portable graph. Both
/// round activations to 8 bits, each in groups of its own, so tokens differ a little in either direction, which over a
/// text cancels out; a wrong scale or zero point does not.
pub(crate) const PERPLEXITY_SHARE: f64 = 0.002;

fn check(subject: Subject) {
    let found = perplexity(subject);
    let first = Subject::first().with_precision(subject.precision);
    if subject.profile == Profile::Native && first.is_supported() {
        let portable = perplexity(first);
        let difference = found / portable - 1.0;
        measured(&format!(
            "{subject}, {}: {portable} portable, {found}, {difference:+.5}",
            subject.precision
        ));
        assert!(difference.abs() < PERPLEXITY_SHARE, "{difference}");
    } else {
        let rise = rise(found);
        measured(&format!("{subject}, {}: {:+.3} %", subject.precision, rise * 100.0));
        assert!(rise.abs() <= allowed(subject.precision), "{rise}");
    }
}

fn with_zero_points_and_groups_of_16_the_head_takes_4_bits_too(subject: Subject) {
    let subject = Subject { profile: Profile::OnnxRuntime, precision: Precision::Q4, ..subject };
    if !subject.is_supported() {
        return;
    }
    let export = Case::named("jetmoe-mini").export();
    let graph = export.graph_with(subject.profile, subject.precision, &plan(&["int4/16:lm_head"], true));
    let stored = &graph.artifact.graph(None, None).unwrap().stored;
    assert!(stored.keys().all(|storage| storage.to_string() != "int8"), "{stored:?}");
    let model = load(subject.backend, &graph.artifact, None, &subject.single_threaded_options()).unwrap();
    let rise = rise(held_out_perplexity(&model));
    assert!(rise <= allowed(subject.precision), "{rise}");
}
