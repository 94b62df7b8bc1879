//! Calibrated 4-bit weights on held-out text. The model wrote the calibration text itself.

use jetmoe::artifact::{Artifact, Precision, WeightPlan};
use jetmoe::conformance::load;
use jetmoe::export::{Calibration, ExportOptions, export};

use crate::fixtures::{Case, temporary_folder};
use crate::perplexity::{held_out_perplexity, rise};
use crate::subject::{Subject, has_device};
use crate::suite::{Suite, measured, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    // calibration is about weights, which are the same in every backend and on every device
    let is_first = subject.backend == Subject::first().backend && !subject.is_reference();
    if is_first && !has_device() && subject.precisions().contains(&Precision::Q4) {
        suite.add_group(
            subject,
            "calibration",
            named![calibration_keeps_the_perplexity_of_4_bit_weights_near_that_of_float32],
        );
    }
}

/// Perplexity may rise by that much with 4-bit weights that were calibrated.
const CALIBRATED: f64 = 0.012;

fn calibration_keeps_the_perplexity_of_4_bit_weights_near_that_of_float32(subject: Subject) {
    let case = Case::named("jetmoe-mini");
    let portable = Subject::first().with_precision(Precision::Q4);
    let alone = rise(crate::perplexity::perplexity(portable));
    let subject = subject.with_precision(Precision::Q4);
    let (export_of_case, folder) = (case.export(), temporary_folder());
    let plan = WeightPlan::default();
    let options = ExportOptions {
        calibration: Some(Calibration::new(case.folder.join("calibration.txt"))),
        ..export_of_case.options(&folder, subject.profile, subject.precision, &plan)
    };
    export(&export_of_case.checkpoint, &options).unwrap();
    let artifact = Artifact::open(folder.path()).unwrap();
    let model = load(subject.backend, &artifact, None, &subject.single_threaded_options()).unwrap();
    let calibrated = rise(held_out_perplexity(&model));
    let (shown, shown_alone) = (100.0 * calibrated, 100.0 * alone);
    measured(&format!("{subject}: perplexity rises by {shown_alone:.2} %, calibrated by {shown:.2} %"));
    assert!(calibrated <= CALIBRATED, "{calibrated}");
    assert!(calibrated < 0.9 * alone, "{calibrated} is hardly less than {alone}");
}
