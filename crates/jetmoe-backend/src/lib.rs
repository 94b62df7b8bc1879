//! The interface of backends of `jetmoe-rt`, and the code that they share.
//!
//! A [`Backend`] is a value that names itself, says which graphs it [supports](Backend::supports) and loads them. A
//! [`LoadedGraph`] holds weights and is shared; a [`GraphSession`] holds the key/value cache of one batch. Each backend is a
//! crate of its own, and `jetmoe-rt` has the list of them.
//!
//! Shared code: the bookkeeping of a [key/value cache](kv_cache) that is updated in place, the computation of the
//! [custom operators](operator), the [contract] check of a graph's inputs and outputs, a [trace writer](trace), and settings of the
//! [allocator].
//!
//! No public type names a type of `ort`, `tract` or another engine, so these can change.

pub mod allocator;
mod backend;
mod cancellation;
pub mod contract;
mod device;
mod error;
mod graph_source;
pub mod kv_cache;
mod loaded_graph;
mod memory;
pub mod operator;
mod options;
mod prefetch;
pub mod trace;

pub use backend::{Backend, Support};
pub use cancellation::{CancellationGuard, CancellationToken, DeadlineGuard, DropGuard};
pub use device::{
    CudaOptions, Device, ExecutionProvider, OpenVinoDevice, OpenVinoOptions, OpenVinoPrecision,
    ProviderOption, TensorRtOptions, TokenShape,
};
pub use error::{BoxError, Error, Result};
pub use graph_source::GraphSource;
pub use jetmoe_checkpoint::catch_panics;
pub use jetmoe_format::Error as FormatError;
pub use jetmoe_kernels::Error as KernelsError;
pub use loaded_graph::{
    GraphSession, LoadedGraph, LogitsToKeep, SavedCache, SlotInputs, SlotSession, StepInputs, TensorMap,
};
pub use memory::{MemoryShortage, available_memory, estimate_memory};
pub use options::LoadOptions;
pub use prefetch::Prefetch;

/// Compiles the program in the guide for backends.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/add-a-backend.md")]
struct Guide;
