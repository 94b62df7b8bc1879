//! Makes deployable artifacts from JetMoE checkpoints.
//!
//! [`export`] is the whole pipeline: open and check the checkpoint, build the graph, stream the weights, and write the
//! files that other clients need. What it writes is not an artifact before the manifest is there, and the manifest
//! comes last.
//!
//! [`console`] is what this crate's command shares with the other commands of the house.

mod calibrated;
mod calibration;
mod client_files;
pub mod console;
mod error;
mod export;
mod gathering;
mod output;
mod progress;

pub use calibration::Calibration;
pub use error::{Error, Result};
pub use export::{ExportOptions, Exported, export, record_verification};
pub use progress::{byte_bar, spinner, step_bar};
