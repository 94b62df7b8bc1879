//! Weights in the files: read back, dequantized by the definitions of the operators that read them, and compared with the
//! checkpoint. The writer's own code is not used.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod checked;
mod dequantized;
mod files;
mod gpu;
mod observed;
mod panels;
mod precomputed;
mod refusals;
mod shared;
mod stored;
mod unexpected;
mod unexpected_sizes;
mod weights;
mod writing;

use jetmoe_artifact::{Precision, Profile, Scheme, StorageOverride, Task, WeightPlan};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_graph::{GraphOptions, Quantizer, Result, Rounding, build, write};
use jetmoe_onnx::{Graph, Model, Tensor};
use jetmoe_testing::fixtures;

use crate::dequantized::{Matrix, matrices};

/// A graph with its data, read back from the files.
struct Written {
    model: Model,
    data: Vec<u8>,
}

impl Written {
    fn of(checkpoint: &Checkpoint, options: &GraphOptions, quantizer: &dyn Quantizer) -> Result<Self> {
        let graph = build(checkpoint.config(), options)?;
        let folder = tempfile::tempdir().unwrap();
        let (graph_path, data_path) = (folder.path().join("g.onnx"), folder.path().join("g.onnx_data"));
        write(&graph, checkpoint, quantizer, &graph_path, &data_path, &mut |_| ())?;
        Ok(Written {
            model: jetmoe_onnx::read(&graph_path).unwrap(),
            data: std::fs::read(&data_path).unwrap(),
        })
    }

    fn graph(&self) -> &Graph {
        self.model.graph.as_ref().unwrap()
    }

    /// Every tensor in the data file.
    fn external(&self) -> impl Iterator<Item = &Tensor> {
        self.graph().initializer.iter().filter(|tensor| !tensor.external_data.is_empty())
    }

    fn tensor(&self, name: &str) -> &Tensor {
        self.external().find(|tensor| tensor.name.as_deref() == Some(name)).unwrap()
    }

    /// Every weight that products or embeddings dequantize.
    fn matrices(&self) -> Vec<Matrix> {
        matrices(self)
    }
}

/// A way to store weights.
#[derive(Debug, Clone)]
struct Way {
    precision: Precision,
    profile: Profile,
    group_size: usize,
    zero_points: bool,
    /// Values of `--override`.
    overrides: Vec<&'static str>,
}

impl Way {
    fn new(precision: Precision, profile: Profile) -> Self {
        let WeightPlan { group_size, zero_points, .. } = WeightPlan::default();
        Way { precision, profile, group_size, zero_points, overrides: Vec::new() }
    }

    fn options(&self, task: Task) -> GraphOptions {
        let overrides: Vec<StorageOverride> =
            self.overrides.iter().map(|text| text.parse().unwrap()).collect();
        GraphOptions {
            precision: self.precision,
            profile: self.profile,
            weights: WeightPlan { group_size: self.group_size, zero_points: self.zero_points, overrides },
            ..GraphOptions::for_task(task)
        }
    }

    fn write(&self, checkpoint: &Checkpoint, quantizer: &dyn Quantizer) -> Result<Written> {
        Written::of(checkpoint, &self.options(Task::CausalLm), quantizer)
    }
}

const QUANTIZED: [Precision; 3] = [Precision::Int8, Precision::Q4, Precision::Q4F16];

/// The profiles that have graphs of a precision.
fn profiles_of(precision: Precision) -> impl Iterator<Item = Profile> {
    Profile::ALL.iter().copied().filter(move |profile| profile.has(precision))
}

/// Every way to quantize: precisions, profiles, zero points and group sizes, and both widths of the head.
fn every_way() -> Vec<Way> {
    let mut ways = Vec::new();
    for precision in QUANTIZED {
        for profile in profiles_of(precision) {
            for zero_points in [false, true] {
                for group_size in Scheme::GROUP_SIZES {
                    let group_size = *group_size;
                    let way = Way { group_size, zero_points, ..Way::new(precision, profile) };
                    ways.push(way.clone());
                    if precision != Precision::Int8 {
                        ways.push(Way { overrides: vec!["int4:lm_head"], ..way });
                    }
                }
            }
        }
    }
    ways
}

fn golden(name: &str) -> Checkpoint {
    Checkpoint::open(fixtures::checkpoint(name)).unwrap()
}

/// Every golden checkpoint that has a head for the next token.
fn golden_language_models() -> Vec<(String, Checkpoint)> {
    let cases = fixtures::golden_cases();
    let cases = cases.iter().filter(|case| case.parent().is_some_and(|group| group.ends_with("goldens")));
    let names = cases.map(|case| case.file_name().unwrap().to_string_lossy().into_owned());
    let names: Vec<String> = names.filter(|name| name != "classifier").collect();
    assert!(names.len() >= 9, "{names:?}");
    names.into_iter().map(|name| (name.clone(), golden(&name))).collect()
}

/// The exporter's default rounding.
const BY_DEFAULT: Rounding = Rounding::Search;
