//! A backend as a value.

use std::fmt::Debug;
use std::sync::Arc;

use jetmoe_artifact::{Artifact, GraphRecord, Profile};
use jetmoe_kernels::Isa;

use crate::{Device, LoadOptions, LoadedGraph, Result};

/// Something that loads graphs and runs them: ONNX Runtime, tract, the Candle reference.
pub trait Backend: Debug + Send + Sync {
    /// Its name on the command line and in reports, as in `tract`.
    fn name(&self) -> &'static str;

    /// Version of a backend that is compiled in. `None`, the default, for one whose version is that of a shared library.
    fn version(&self) -> Option<&'static str> {
        None
    }

    /// Whether it computes on a device at all. By default only on the CPU.
    fn has_device(&self, device: &Device) -> bool {
        *device == Device::Cpu
    }

    /// Whether it can run a graph, and how well that suits it.
    fn supports(&self, graph: &GraphRecord, options: &LoadOptions) -> Support;

    /// Whether products with quantized weights round activations to 8 bits, so that results are held to that tolerance.
    fn rounds_activations(&self, graph: &GraphRecord, options: &LoadOptions) -> bool;

    /// Memory in bytes that a graph takes while it is loaded and afterwards, whichever is more. Pages of mapped files do
    /// not count, as the system takes them back when it needs them; neither does the cache, which grows with the text.
    fn estimate_memory(&self, graph: &GraphRecord, options: &LoadOptions) -> u64;

    /// Loads a graph of an artifact.
    ///
    /// # Errors
    /// [`Error::LibraryNotFound`](crate::Error::LibraryNotFound) where this machine lacks what the backend needs,
    /// [`Error::Load`](crate::Error::Load) for what it refuses.
    fn load(
        &self,
        artifact: &Artifact,
        graph: &GraphRecord,
        options: &LoadOptions,
    ) -> Result<Arc<dyn LoadedGraph>>;
}

/// Whether a backend can run a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// It can. Of graphs of one precision it takes the one with the highest preference.
    Yes {
        /// How well the graph suits it, compared with other graphs.
        preference: i32,
    },
    /// It cannot.
    No {
        /// Why, as a clause: "it has no bfloat16 arithmetic".
        reason: String,
    },
}

impl Support {
    /// Support by a backend that runs these profiles, the one that suits it best first.
    pub fn by_profile(profiles: &[Profile], graph: &GraphRecord, options: &LoadOptions) -> Self {
        let Some(place) = profiles.iter().position(|profile| *profile == graph.profile) else {
            let known: Vec<String> = profiles.iter().map(Profile::to_string).collect();
            return Support::No { reason: format!("it runs the profiles {}", known.join(" and ")) };
        };
        let is_portable = graph.profile == Profile::Portable;
        // the operators of the other profiles have the rounding of activations built in
        let rounds = !options.int8_activations && graph.precision.format().is_quantized() && !is_portable;
        // the custom operators gain nothing where the processor has only the generic kernels
        let is_slow = graph.profile == Profile::Native && Isa::best() == Isa::Generic;
        // of the operators of the other profiles OpenVINO takes only some
        let is_split = matches!(options.device, Device::OpenVino(_)) && !is_portable;
        let penalty = place + if is_slow || is_split { 10 } else { 0 } + if rounds { 100 } else { 0 };
        Support::Yes { preference: -(penalty as i32) }
    }

    /// Whether it can.
    pub fn is_yes(&self) -> bool {
        matches!(self, Support::Yes { .. })
    }
}
