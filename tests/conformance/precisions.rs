//! Every precision: its arithmetic against the reference on the weights that the graph holds, and its quality on
//! held-out text.

use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use jetmoe::artifact::{Artifact, OptionalOutput, Precision, Profile, WeightPlan};
use jetmoe::conformance::{
    Backend, EvaluationOptions, Expectation, Quality, Tolerance, Verifier, compare, evaluate, load,
    reference_model,
};
use jetmoe::export::{ExportOptions, export};
use jetmoe::rt::{Error, LoadOptions, Model, Runtime, TokenBatch};
use ndarray::Slice;
use tempfile::TempDir;

use crate::closeness::token_axis;
use crate::fixtures::{Case, device, load_options};

/// A case exported in several ways into one artifact.
pub(crate) struct Exports {
    pub(crate) case: Case,
    folder: TempDir,
}

impl Exports {
    pub(crate) fn of(case: &str) -> Self {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Exports { case: Case::named(case), folder }
    }

    pub(crate) fn add(&self, precision: Precision, profile: Profile, weights: WeightPlan) -> Artifact {
        let options = ExportOptions {
            precision,
            profile,
            weights,
            optional_outputs: OptionalOutput::ALL.iter().copied().collect(),
            ..ExportOptions::new(self.case.folder.display().to_string(), self.folder.path())
        };
        export(&self.case.checkpoint(), &options).unwrap();
        Artifact::open(self.folder.path()).unwrap()
    }
}

/// The profiles that have graphs of a precision.
fn profiles_of(precision: Precision) -> impl Iterator<Item = Profile> {
    Profile::ALL.iter().copied().filter(move |profile| profile.has(precision))
}

pub(crate) fn plan(overrides: &[&str], zero_points: bool) -> WeightPlan {
    let overrides = overrides.iter().map(|text| text.parse().unwrap()).collect();
    WeightPlan { overrides, zero_points, ..WeightPlan::default() }
}

pub(crate) fn options(backend: Backend, precision: Precision, profile: Profile) -> LoadOptions {
    LoadOptions {
        device: device(backend),
        precision: Some(precision),
        profile: Some(profile),
        int8_activations: false,
        ..LoadOptions::default()
    }
}

/// Verifies every graph of `tiny` in one artifact that a runtime can run, and answers how many there were.
fn verify_every_graph(runtime: Runtime, backend: Backend) -> usize {
    let exports = Exports::of("tiny");
    let checkpoint = exports.case.checkpoint();
    let mut verified = 0;
    for weights in [WeightPlan::default(), plan(&["int4:lm_head", "f32:layers.1.mlp", "f16:kv_proj"], true)] {
        let mut artifact = None;
        for precision in Precision::ALL {
            for profile in profiles_of(*precision) {
                artifact = Some(exports.add(*precision, profile, weights.clone()));
            }
        }
        let artifact = artifact.unwrap();
        let graphs = Precision::ALL.iter().flat_map(|precision| profiles_of(*precision)).count();
        assert_eq!(artifact.manifest().graphs.len(), graphs);
        artifact.check_digests().unwrap();
        for graph in &artifact.manifest().graphs {
            let options = options(backend, graph.precision, graph.profile);
            let mut verifier = Verifier::new(&artifact, Some(&checkpoint), options, None);
            let result = verifier.verify(backend);
            if !runtime.can_run(graph) || !device(backend).runs(graph.precision, graph.profile) {
                let refused = result.unwrap_err();
                assert!(
                    matches!(
                        &refused,
                        jetmoe::conformance::Error::Runtime(
                            Error::CannotRun { .. } | Error::DeviceCannotRun { .. }
                        )
                    ),
                    "{refused}"
                );
                continue;
            }
            let comparison = result.unwrap();
            assert!(comparison.passed, "{} {}: {comparison:#?}", graph.precision, graph.profile);
            assert_eq!(comparison.not_compared, ["last_hidden_state"]);
            verified += 1;
        }
    }
    verified
}

#[test]
fn onnx_runtime_runs_every_precision_and_profile_as_the_reference_does() {
    let runs = |precision| {
        let profiles = profiles_of(precision).filter(|profile| Runtime::Ort.profiles().contains(profile));
        profiles.filter(|profile| device(Backend::Ort).runs(precision, *profile)).count()
    };
    let graphs = Precision::ALL.iter().map(|precision| runs(*precision)).sum::<usize>();
    assert_eq!(verify_every_graph(Runtime::Ort, Backend::Ort), 2 * graphs);
}

#[cfg(feature = "tract")]
#[test]
fn tract_runs_every_precision_of_its_profiles_as_the_reference_does() {
    let native = [Precision::Bf16, Precision::Int8, Precision::Q4].len();
    let portable = Precision::ALL.iter().filter(|precision| **precision != Precision::Bf16).count();
    assert_eq!(verify_every_graph(Runtime::Tract, Backend::Tract), 2 * (native + portable));
}

#[test]
fn rounded_weights_are_no_excuse_for_wrong_arithmetic() {
    // against the checkpoint's own weights the same graph is far off: what makes it agree is that its weights are read
    let exports = Exports::of("tiny");
    let artifact = exports.add(Precision::Q4, Profile::Portable, WeightPlan::default());
    let graph = artifact.graph(None, None).unwrap();
    let own = reference_model(&exports.case.checkpoint(), graph.task).unwrap();
    let expectation = Expectation::from_model(&own).unwrap();
    let options = options(Backend::Ort, Precision::Q4, Profile::Portable);
    let model = load(Backend::Ort, &artifact, None, &options).unwrap();
    let comparison = compare(Backend::Ort, &model, &expectation, Tolerance::Float32).unwrap();
    assert!(comparison.tensors.iter().all(|tensor| !tensor.passed || tensor.name == "hidden_states.*"));
    assert!(!comparison.passed);
}

#[test]
fn a_golden_file_is_not_held_against_rounded_weights() {
    let exports = Exports::of("tiny");
    let artifact = exports.add(Precision::Int8, Profile::Portable, WeightPlan::default());
    let options = options(Backend::Ort, Precision::Int8, Profile::Portable);
    let mut verifier = Verifier::new(&artifact, None, options, Some(exports.case.golden()));
    let error = verifier.verify(Backend::Ort).unwrap_err();
    assert!(error.to_string().contains("the int8 graph holds rounded ones"), "{error}");
}

/// jetmoe-mini in every precision, portable and native, in one artifact.
static MINI: LazyLock<(Exports, Artifact)> = LazyLock::new(|| {
    let exports = Exports::of("jetmoe-mini");
    for precision in Precision::ALL {
        for profile in
            [Profile::Portable, Profile::Native].into_iter().filter(|profile| profile.has(*precision))
        {
            exports.add(*precision, profile, WeightPlan::default());
        }
    }
    let artifact = Artifact::open(exports.folder.path()).unwrap();
    (exports, artifact)
});

/// Perplexity of jetmoe-mini on held-out text, measured once for all tests.
pub(crate) fn mini_perplexity(backend: Backend, precision: Precision, profile: Profile) -> f64 {
    type Measured = Vec<((Backend, Precision, Profile), Arc<OnceLock<f64>>)>;
    static MEASURED: Mutex<Measured> = Mutex::new(Vec::new());
    let key = (backend, precision, profile);
    let place = {
        let mut measured = MEASURED.lock().unwrap();
        let known = measured.iter().find(|(known, _)| *known == key).map(|(_, place)| place.clone());
        known.unwrap_or_else(|| {
            let place = Arc::new(OnceLock::new());
            measured.push((key, place.clone()));
            place
        })
    };
    let (exports, artifact) = &*MINI;
    *place.get_or_init(|| {
        let options =
            LoadOptions { precision: Some(precision), profile: Some(profile), ..load_options(backend) };
        perplexity(&exports.case, artifact, backend, &options)
    })
}

/// Perplexity on held-out text.
fn perplexity(case: &Case, artifact: &Artifact, backend: Backend, options: &LoadOptions) -> f64 {
    let model = load(backend, artifact, None, options).unwrap();
    let text = case.folder.join("eval.jsonl");
    let quality = evaluate(&model, None, &text, &EvaluationOptions::default(), &mut |_, _| {}).unwrap();
    let Quality::CausalLm(quality) = quality else { panic!("a language model has a perplexity") };
    quality.perplexity
}

/// By how much a perplexity lies above float32's, as transformers measured it.
fn rise(case: &Case, perplexity: f64) -> f64 {
    perplexity / case.json("expected.json")["perplexity"].as_f64().unwrap() - 1.0
}

/// What a precision may cost.
fn allowed(precision: Precision) -> f64 {
    match precision {
        Precision::F32 | Precision::F16 | Precision::Bf16 | Precision::Int8 => 0.001,
        Precision::Q4 | Precision::Q4F16 => 0.018,
    }
}

fn check_quality(backend: Backend, precisions: &[Precision]) {
    let runs = |precision: &&Precision| device(backend).runs(**precision, Profile::Portable);
    for precision in precisions.iter().filter(runs) {
        let rise = rise(&MINI.0.case, mini_perplexity(backend, *precision, Profile::Portable));
        println!("{precision} on {backend}: {:+.3} %", rise * 100.0);
        assert!(rise.abs() <= allowed(*precision), "{precision} on {backend}: {rise}");
    }
}

#[test]
fn in_onnx_runtime_no_precision_costs_more_quality_than_it_may() {
    check_quality(
        Backend::Ort,
        &[Precision::F16, Precision::Bf16, Precision::Int8, Precision::Q4, Precision::Q4F16],
    );
}

#[cfg(feature = "tract")]
#[test]
fn in_tract_no_precision_costs_more_quality_than_it_may() {
    check_quality(Backend::Tract, &[Precision::F16, Precision::Int8, Precision::Q4]);
}

#[test]
fn with_zero_points_and_groups_of_16_the_head_takes_4_bits_too() {
    let exports = Exports::of("jetmoe-mini");
    let weights = plan(&["int4/16:lm_head"], true);
    let artifact = exports.add(Precision::Q4, Profile::OnnxRuntime, weights);
    let graph = artifact.graph(None, None).unwrap();
    assert!(graph.stored.keys().all(|storage| storage.to_string() != "int8"), "{:?}", graph.stored);
    let options = LoadOptions { precision: Some(Precision::Q4), ..load_options(Backend::Ort) };
    let rise = rise(&exports.case, perplexity(&exports.case, &artifact, Backend::Ort, &options));
    assert!(rise <= allowed(Precision::Q4), "{rise}");
}

#[test]
fn a_cache_of_any_precision_is_truncated_to_its_first_tokens() {
    let exports = Exports::of("tiny");
    let mut artifact = None;
    for precision in Precision::ALL {
        for profile in profiles_of(*precision) {
            artifact = Some(exports.add(*precision, profile, WeightPlan::default()));
        }
    }
    let artifact = artifact.unwrap();
    for graph in &artifact.manifest().graphs {
        for (runtime, backend) in [(Runtime::Ort, Backend::Ort), (Runtime::Tract, Backend::Tract)] {
            let runs = runtime.can_run(graph) && device(backend).runs(graph.precision, graph.profile);
            if !runtime.is_built_in() || !runs {
                continue;
            }
            let options = options(backend, graph.precision, graph.profile);
            let options = LoadOptions { runtime: Some(runtime), ..options };
            let mut session = Model::load_artifact(&artifact, &options).unwrap().session().unwrap();
            let prompts = [vec![5, 6, 7, 8, 9], vec![10, 11]];
            session.step(&TokenBatch::left_padded(&prompts, 0).unwrap()).unwrap();
            let whole = session.cache().unwrap();
            session.truncate(3).unwrap();
            let kept = session.cache().unwrap();
            assert!(kept.keys().eq(whole.keys()) && !kept.is_empty());
            for (name, tensor) in &whole {
                let first = tensor.slice_axis(token_axis(*name), Slice::from(..3));
                assert!(kept[name] == first, "{name} of {} on {runtime}", graph.precision);
            }
            let next = session.step(&TokenBatch::next_tokens(&[12, 13])).unwrap();
            assert!(next.last_logits(1).unwrap().iter().all(|logit| logit.is_finite()));
        }
    }
}
