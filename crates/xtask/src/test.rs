//! `test`: all tests.

use anyhow::Result;

use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;
use crate::{interop, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed to `cargo test --workspace`; the interop checks are left out then
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CARGO TEST ARGUMENT")]
    cargo_arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    setup::onnxruntime_library(workspace, steps)?;
    let tests = CommandLine::cargo(["test", "--workspace"]).args(&arguments.cargo_arguments);
    steps.run("tests", &workspace.root, &tests)?;
    if arguments.cargo_arguments.is_empty() { interop::run(workspace, steps) } else { Ok(()) }
}
