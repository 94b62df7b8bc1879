//! `regenerate`: generated files that are checked in.

use anyhow::Result;

use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail if a file is out of date
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    if arguments.check { check(workspace, steps) } else { rewrite(workspace, steps) }
}

fn check(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.run("generated files", &workspace.root, &graph_texts())
}

fn rewrite(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.run("regenerate graphs/", &workspace.root, &graph_texts().env("JETMOE_REGENERATE", "1"))
}

/// The test that compares graphs/ with the graphs that the exporter builds, or rewrites it. `--workspace`, because with
/// another selection of packages cargo builds the dependencies again with other features.
fn graph_texts() -> CommandLine {
    CommandLine::cargo(["test", "--workspace", "--test", "graphs"])
}
