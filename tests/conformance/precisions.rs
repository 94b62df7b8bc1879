//! Every precision: what a graph computes against the reference on the weights that the graph holds.

use jetmoe::artifact::{Artifact, Precision, Profile, WeightPlan};
use jetmoe::conformance::{Error, Expectation, Verifier, reference_model};
use jetmoe::rt::{Error as ModelError, LoadOptions, TokenBatch};
use ndarray::Slice;

use crate::closeness::token_axis;
use crate::fixtures::{Case, temporary_folder};
use crate::subject::Subject;
use crate::suite::{Suite, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    if subject.is_reference() {
        return;
    }
    for precision in subject.precisions() {
        suite.add(subject, format!("precisions::{precision}"), move |subject| {
            check_against_reference(subject.with_precision(precision));
        });
        suite.add(subject, format!("truncation::{precision}"), move |subject| {
            check_truncation(subject.with_precision(precision));
        });
    }
    suite.add_group(subject, "precisions", named![a_precision_that_cannot_run_is_refused]);
    if subject.is_first() {
        suite.add_group(
            subject,
            "precisions",
            named![
                quantized_weights_do_not_excuse_wrong_arithmetic,
                a_golden_file_is_not_compared_with_quantized_weights,
            ],
        );
    }
}

pub(crate) fn add_general_tests(suite: &mut Suite) {
    suite.add_general_group(
        "precisions",
        named![
            one_artifact_holds_a_graph_of_every_precision_and_profile,
            a_backend_runs_what_it_is_known_to_run
        ],
    );
}

/// A plan that keeps some weights in other formats.
pub(crate) fn plan(overrides: &[&str], zero_points: bool) -> WeightPlan {
    let overrides = overrides.iter().map(|text| text.parse().unwrap()).collect();
    WeightPlan { overrides, zero_points, ..WeightPlan::default() }
}

fn plans() -> [WeightPlan; 2] {
    [WeightPlan::default(), plan(&["int4:lm_head", "f32:layers.1.mlp", "f16:kv_proj"], true)]
}

/// Products that do not round activations where the backend leaves the choice: then a graph must meet the tolerance of
/// its own arithmetic.
pub(crate) fn exact_options(subject: Subject) -> LoadOptions {
    subject.load_options().with_int8_activations(false)
}

/// Every precision of a profile.
fn precisions_of(profile: Profile) -> impl Iterator<Item = Precision> {
    Precision::ALL.iter().copied().filter(move |precision| profile.has(*precision))
}

fn check_against_reference(subject: Subject) {
    let export = Case::named("tiny").export();
    for weights in plans() {
        let graph = export.graph_with(subject.profile, subject.precision, &weights);
        let checkpoint = Some(&export.checkpoint);
        let mut verifier = Verifier::new(&graph.artifact, checkpoint, exact_options(subject), None);
        let comparison = verifier.verify(subject.backend).unwrap();
        assert!(comparison.passed, "{weights:?}: {comparison:#?}");
        assert_eq!(comparison.not_compared, ["last_hidden_state"]);
    }
}

fn check_truncation(subject: Subject) {
    let model = Case::named("tiny").export().load_with(subject, &exact_options(subject));
    let mut session = model.session().unwrap();
    let prompts = [vec![5, 6, 7, 8, 9], vec![10, 11]];
    session.step(&TokenBatch::left_padded(&prompts, 0).unwrap()).unwrap();
    let whole = session.cache().unwrap();
    session.truncate(3).unwrap();
    let kept = session.cache().unwrap();
    assert!(kept.keys().eq(whole.keys()) && !kept.is_empty());
    for (name, tensor) in &whole {
        let first = tensor.slice_axis(token_axis(*name), Slice::from(..3));
        assert!(kept[name] == first, "{name}");
    }
    let next = session.step(&TokenBatch::next_tokens(&[12, 13])).unwrap();
    assert!(next.last_logits(1).unwrap().iter().all(|logit| logit.is_finite()));
}

fn a_precision_that_cannot_run_is_refused(subject: Subject) {
    let export = Case::named("tiny").export();
    // including profiles that the backend does not support
    for profile in Profile::ALL.iter().copied() {
        for precision in precisions_of(profile) {
            let subject = Subject { profile, precision, ..subject };
            if subject.is_supported() {
                continue;
            }
            let graph = export.graph(subject);
            let mut verifier =
                Verifier::new(&graph.artifact, Some(&export.checkpoint), exact_options(subject), None);
            let error = verifier.verify(subject.backend).unwrap_err();
            assert!(
                matches!(&error, Error::Model(ModelError::Unsupported { .. })),
                "{profile}, {precision}: {error}"
            );
        }
    }
}

/// Against the checkpoint's own weights the same graph is far off: it agrees because its weights are read.
fn quantized_weights_do_not_excuse_wrong_arithmetic(subject: Subject) {
    let subject = subject.with_precision(Precision::Q4);
    let export = Case::named("tiny").export();
    let graph = export.graph(subject);
    let task = graph.artifact.graph(None, None).unwrap().task;
    let own = reference_model(&export.checkpoint, task).unwrap();
    let model = export.load_with(subject, &exact_options(subject));
    let comparison = subject.compare(&model, &Expectation::from_model(&own).unwrap());
    assert!(comparison.tensors.iter().all(|tensor| !tensor.passed || tensor.name == "hidden_states.*"));
    assert!(!comparison.passed);
}

fn a_golden_file_is_not_compared_with_quantized_weights(subject: Subject) {
    let case = Case::named("tiny");
    let subject = subject.with_precision(Precision::Int8);
    let graph = case.export().graph(subject);
    let mut verifier = Verifier::new(&graph.artifact, None, exact_options(subject), Some(case.golden()));
    let error = verifier.verify(subject.backend).unwrap_err();
    assert!(error.to_string().contains("the int8 graph holds quantized ones"), "{error}");
}

fn one_artifact_holds_a_graph_of_every_precision_and_profile() {
    let export = Case::named("tiny").export();
    for weights in plans() {
        let folder = temporary_folder();
        let mut graphs = 0;
        for precision in Precision::ALL.iter().copied() {
            for profile in Profile::ALL.iter().copied().filter(|profile| profile.has(precision)) {
                let options = export.options(&folder, profile, precision, &weights);
                jetmoe::export::export(&export.checkpoint, &options).unwrap();
                graphs += 1;
            }
        }
        let artifact = Artifact::open(folder.path()).unwrap();
        assert_eq!(artifact.manifest().graphs.len(), graphs);
        artifact.check_digests().unwrap();
    }
}

/// The precisions of each profile that a backend must run on the CPU; a backend without a row makes no promise.
const RUNS: [(&str, Profile, &[Precision]); 6] = [
    ("ort", Profile::Portable, Precision::ALL),
    ("ort", Profile::OnnxRuntime, Precision::ALL),
    ("ort", Profile::Gpu, Precision::ALL),
    ("ort", Profile::Native, &[Precision::Bf16, Precision::Int8, Precision::Q4]),
    (
        "tract",
        Profile::Portable,
        &[Precision::F32, Precision::F16, Precision::Int8, Precision::Q4F16, Precision::Q4],
    ),
    ("tract", Profile::Native, &[Precision::Bf16, Precision::Int8, Precision::Q4]),
];

fn a_backend_runs_what_it_is_known_to_run() {
    for subject in Subject::all() {
        for (backend, profile, precisions) in RUNS {
            if (subject.backend.to_string().as_str(), subject.profile) == (backend, profile) {
                let mut expected: Vec<Precision> = precisions.to_vec();
                expected.retain(|precision| {
                    profile.has(*precision) && subject.device().runs(*precision, profile)
                });
                assert_eq!(subject.precisions(), expected, "{subject}");
            }
        }
    }
}
