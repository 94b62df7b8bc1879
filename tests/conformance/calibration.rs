//! Calibrated 4-bit weights on held-out text. What they are calibrated with the model wrote itself.

use jetmoe::artifact::{Artifact, Precision};
use jetmoe::conformance::{Backend, EvaluationOptions, Quality, evaluate, load};
use jetmoe::export::{Calibration, ExportOptions, export};
use jetmoe::rt::LoadOptions;
use tempfile::TempDir;

use crate::fixtures::Case;

/// Perplexity may rise by that much with 4-bit weights that were calibrated.
const CALIBRATED: f64 = 0.012;

/// Perplexity with 4-bit weights.
fn perplexity(case: &Case, calibration: Option<Calibration>) -> f64 {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = ExportOptions {
        precision: Precision::Q4,
        calibration,
        ..ExportOptions::new(case.name.clone(), folder.path())
    };
    export(&case.checkpoint(), &options).unwrap();
    let artifact = Artifact::open(folder.path()).unwrap();
    let model = load(Backend::Ort, &artifact, None, &LoadOptions::default()).unwrap();
    let text = case.folder.join("eval.jsonl");
    let quality = evaluate(&model, None, &text, &EvaluationOptions::default(), &mut |_, _| {}).unwrap();
    let Quality::CausalLm(quality) = quality else { panic!("a language model has a perplexity") };
    quality.perplexity
}

#[test]
fn calibration_keeps_the_perplexity_of_4_bit_weights_near_that_of_float32() {
    let case = Case::named("jetmoe-mini");
    let expected = case.json("expected.json")["perplexity"].as_f64().unwrap();
    let rise = |calibration| perplexity(&case, calibration) / expected - 1.0;
    let alone = rise(None);
    let calibrated = rise(Some(Calibration::new(case.folder.join("calibration.txt"))));
    println!("perplexity rises by {:.2} %, calibrated by {:.2} %", 100.0 * alone, 100.0 * calibrated);
    assert!(calibrated <= CALIBRATED, "{calibrated}");
    assert!(calibrated < 0.9 * alone, "{calibrated} is hardly less than {alone}");
}
