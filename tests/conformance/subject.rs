//! What a test runs on: a backend with one of the profiles and precisions that it supports.

use std::fmt;

use jetmoe::artifact::{GraphRecord, Precision, Profile};
use jetmoe::conformance::{BackendName, Comparison, Expectation, Tolerance, compare};
use jetmoe::rt::{Device, LoadOptions, Model};
use serde_json::json;

/// A backend, and the profile and precision of the graphs that it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) backend: BackendName,
    pub(crate) profile: Profile,
    pub(crate) precision: Precision,
}

/// Names the device that ONNX Runtime computes on, as `--device` does; the CPU without it. A process holds one
/// libonnxruntime, so each device has the suite to itself: `cargo xtask ci openvino`.
const DEVICE_VARIABLE: &str = "JETMOE_TEST_DEVICE";

/// If it is set, ONNX Runtime copies caches by graphs, as it does on a GPU.
const CACHE_VARIABLE: &str = "JETMOE_TEST_CACHE_BY_GRAPHS";

/// Whether the suite runs on another device than the CPU. What does not depend on the device is then left out.
pub(crate) fn has_device() -> bool {
    std::env::var_os(DEVICE_VARIABLE).is_some()
}

impl Subject {
    /// The Candle reference, which runs no graph.
    pub(crate) const REFERENCE: Subject =
        Subject { backend: BackendName::REFERENCE, profile: Profile::Portable, precision: Precision::F32 };

    /// Every backend of this build with every profile that it supports on the device under test, in the most exact
    /// precision of the profile.
    pub(crate) fn all() -> Vec<Subject> {
        let mut subjects: Vec<Subject> = Self::backends()
            .into_iter()
            .flat_map(|backend| {
                Profile::ALL.iter().filter_map(move |profile| {
                    let subject = Subject { backend, profile: *profile, precision: Precision::F32 };
                    Some(subject.with_precision(*subject.precisions().first()?))
                })
            })
            .collect();
        if !has_device() {
            subjects.push(Self::REFERENCE);
        }
        subjects
    }

    /// The backends of this build that run graphs.
    pub(crate) fn backends() -> Vec<BackendName> {
        let mut backends = BackendName::built_in();
        backends.retain(|backend| *backend != BackendName::REFERENCE);
        backends
    }

    /// The portable profile of the first backend; the reference in a build without backends. Tests of weights, which are
    /// the same in every backend, run on this one.
    pub(crate) fn first() -> Subject {
        let is_portable = |subject: &Subject| subject.profile == Profile::Portable;
        Self::all().into_iter().find(is_portable).unwrap_or(Self::REFERENCE)
    }

    pub(crate) fn is_first(self) -> bool {
        self == Self::first()
    }

    /// Every precision of its profile that the backend runs on the device under test.
    pub(crate) fn precisions(self) -> Vec<Precision> {
        let mut precisions = Precision::ALL.to_vec();
        precisions.retain(|precision| self.with_precision(*precision).is_supported());
        precisions
    }

    pub(crate) fn is_reference(self) -> bool {
        self.backend == BackendName::REFERENCE
    }

    /// The same backend and profile in another precision.
    pub(crate) fn with_precision(self, precision: Precision) -> Subject {
        Subject { precision, ..self }
    }

    /// Whether the backend runs graphs of this profile and precision on the device under test.
    pub(crate) fn is_supported(self) -> bool {
        let Ok(backend) = self.backend.backend() else { return false };
        let options = self.load_options();
        let graph = graph_record(self.precision, self.profile);
        self.profile.has(self.precision)
            && backend.has_device(&options.device)
            && backend.supports(&graph, &options).is_yes()
    }

    /// The device under test, with its default options.
    pub(crate) fn device(self) -> Device {
        std::env::var(DEVICE_VARIABLE).map_or(Device::Cpu, |device| device.parse().unwrap())
    }

    /// How the subject is loaded.
    pub(crate) fn load_options(self) -> LoadOptions {
        LoadOptions::default()
            .with_cache_by_graphs(std::env::var_os(CACHE_VARIABLE).is_some())
            .with_device(self.device())
            .with_profile(self.profile)
            .with_precision(self.precision)
    }

    /// As [`Subject::load_options`], for a model that computes in the thread that asks.
    pub(crate) fn single_threaded_options(self) -> LoadOptions {
        self.load_options().with_threads(1)
    }

    /// Compares what a model computed on this backend, with the tolerance of float32 arithmetic.
    pub(crate) fn compare(self, model: &Model, expectation: &Expectation) -> Comparison {
        compare(self.backend, model, expectation, Tolerance::Float32).unwrap()
    }

    /// The name of a test below the backend.
    pub(crate) fn path(self, test: &str) -> String {
        if self.is_reference() { test.to_owned() } else { format!("{}::{test}", self.profile) }
    }
}

/// A record of a graph that there is not, to ask a backend whether it supports such graphs.
fn graph_record(precision: Precision, profile: Profile) -> GraphRecord {
    let file = json!({ "path": "", "size": 0, "sha256": "0".repeat(64) });
    serde_json::from_value(json!({
        "task": "causal-lm", "precision": precision, "profile": profile, "opset": 21, "optional_outputs": [],
        "graph": file, "data": file, "verification": [],
    }))
    .unwrap()
}

/// The path of its tests, as in `ort::portable`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_reference() {
            write!(f, "{}", self.backend)
        } else {
            write!(f, "{}::{}", self.backend, self.profile)
        }
    }
}
