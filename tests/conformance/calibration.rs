//! Calibrated 4-bit weights on held-out text. What they are calibrated with the model wrote itself.

use jetmoe::artifact::{Artifact, Precision, Profile};
use jetmoe::conformance::{EvaluationOptions, Quality, evaluate, load};
use jetmoe::export::{Calibration, ExportOptions, export};
use tempfile::TempDir;

use crate::fixtures::{Case, ORT, load_options, named};

/// Perplexity may rise by that much with 4-bit weights that were calibrated.
const CALIBRATED: f64 = 0.012;

/// Perplexity with 4-bit weights.
fn perplexity(case: &Case, profile: Profile, calibration: Option<Calibration>) -> f64 {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = ExportOptions {
        precision: Precision::Q4,
        profile,
        calibration,
        ..ExportOptions::new(case.name.clone(), folder.path())
    };
    export(&case.checkpoint(), &options).unwrap();
    let artifact = Artifact::open(folder.path()).unwrap();
    let model = load(named(ORT), &artifact, None, &load_options(named(ORT))).unwrap();
    let text = case.folder.join("eval.jsonl");
    let quality = evaluate(&model, None, &text, &EvaluationOptions::default(), &mut |_, _| {}).unwrap();
    let Quality::CausalLm(quality) = quality else { panic!("a language model has a perplexity") };
    quality.perplexity
}

#[test]
fn calibration_keeps_the_perplexity_of_4_bit_weights_near_that_of_float32() {
    let case = Case::named("jetmoe-mini");
    let expected = case.json("expected.json")["perplexity"].as_f64().unwrap();
    let rise = |profile, calibration| perplexity(&case, profile, calibration) / expected - 1.0;
    let calibration = || Some(Calibration::new(case.folder.join("calibration.txt")));
    let alone = rise(Profile::Portable, None);
    for &profile in Profile::ALL {
        let calibrated = rise(profile, calibration());
        let (shown, shown_alone) = (100.0 * calibrated, 100.0 * alone);
        println!("{profile}: perplexity rises by {shown_alone:.2} %, calibrated by {shown:.2} %");
        assert!(calibrated <= CALIBRATED, "{profile}: {calibrated}");
        assert!(calibrated < 0.9 * alone, "{profile}: {calibrated} is hardly less than {alone}");
    }
}
