//! Exports JetMoE checkpoints to artifacts.
//!
//! [`export`] is the whole pipeline: check the checkpoint, build the graph, stream the weights, and write the files for
//! other clients. The manifest is written last; a folder without one is not an artifact.

mod calibrated;
mod calibration;
mod client_files;
mod error;
mod export;
mod output;
mod progress;
mod staging;
mod taken_over;

pub use calibration::Calibration;
pub use error::{Error, Result};
pub use export::{ExportOptions, Exported, export, export_with_progress, record_verification};
pub use progress::{OnProgress, Progress, Stage};
pub use staging::abort_pending;
pub use taken_over::weight_plan;
