//! `serve`: `jetmoe serve` and its page, called by the clients that people use: `tests/serve`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::python::{BROWSER, SERVE, SERVE_EVALUATION, cache_folder};
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;
use crate::{browser, demo, npm};

/// Where the scripts are, relative to the root.
const SCRIPTS: &str = "tests/serve";

/// Name of the folder in the cache with the packages of npm.
const PACKAGES: &str = "serve-npm";

/// What is served: the name of a model, its checkpoint, and the options of its export. The native profile computes the same bits
/// in any company, and bfloat16 holds the weights of the checkpoints exactly, so that texts are transformers'.
const ARTIFACTS: [(&str, &str, &[&str]); 3] = [
    ("mini", "jetmoe-mini", &["--precision", "bf16", "--profile", "native"]),
    ("backbone", "jetmoe-mini", &["--task", "backbone"]),
    ("classifier", "jetmoe-mini-classifier", &[]),
];

/// A script of Python, with what it takes after the command and the artifacts.
struct Check {
    title: &'static str,
    script: &'static str,
    arguments: &'static [&'static str],
    /// Whether it writes to a folder of its own.
    writes: bool,
    environment: fn() -> PathBuf,
}

const fn check(title: &'static str, script: &'static str) -> Check {
    Check { title, script, arguments: &[], writes: false, environment: || SERVE.program("python") }
}

const CHECKS: [Check; 8] = [
    check("the server and openai of PyPI", "openai_client.py"),
    check("the server, tritonclient and kserve", "infer_clients.py"),
    Check { writes: true, ..check("the server and schemathesis", "openapi.py") },
    check("the server under faults", "faults.py"),
    check("64 streams at once", "load.py"),
    check("two replicas behind nginx", "replicas.py"),
    Check {
        writes: true,
        environment: || SERVE_EVALUATION.program("python"),
        ..check("the server and lm-evaluation-harness", "evaluation.py")
    },
    Check {
        writes: true,
        arguments: &["--requests", "32"],
        environment: || SERVE_EVALUATION.program("python"),
        ..check("the server and guidellm", "benchmark.py")
    },
];

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let browser = browser::chromium(workspace, steps)?;
    install_nginx(workspace, steps)?;
    for environment in [&BROWSER, &SERVE, &SERVE_EVALUATION] {
        environment.prepare(workspace, steps)?;
    }
    npm::install(workspace, steps, PACKAGES, SCRIPTS)?;
    demo::build_commands(workspace, steps)?;

    let root = workspace.root.as_path();
    let folder = workspace.target.join("serve");
    let artifacts = folder.join("artifacts");
    for (name, checkpoint, options) in ARTIFACTS {
        let export = demo::export_command(workspace, checkpoint, &artifacts.join(name)).args(options);
        steps.run(&format!("export {name} for the server"), root, &export)?;
    }

    let jetmoe = workspace.binary("jetmoe");
    let manifests = CommandLine::new(SERVE.program("python")).arg(script("manifests.py")).arg(&jetmoe);
    steps.run("files of examples/serve", root, &manifests)?;
    let modules = CommandLine::new("node").arg("--test").arg(script("modules.test.mjs"));
    steps.run("modules of the page", root, &modules)?;
    let page = CommandLine::new(BROWSER.program("python"))
        .arg(script("page.py"))
        .args([browser.as_path(), &folder])
        .arg("--jetmoe")
        .arg(&jetmoe)
        .arg("--model")
        .arg(artifacts.join("mini"));
    steps.run("the page of the server in a browser", root, &page)?;
    let node = CommandLine::new(SERVE.program("python"))
        .arg(script("node_client.py"))
        .arg(&jetmoe)
        .arg(&artifacts)
        .arg(cache_folder(PACKAGES));
    steps.run("the server and openai of npm", root, &node)?;
    for check in &CHECKS {
        let mut command =
            CommandLine::new((check.environment)()).arg(script(check.script)).arg(&jetmoe).arg(&artifacts);
        if check.writes {
            command = command.arg(folder.join(check.script.trim_end_matches(".py")));
        }
        steps.run(check.title, root, &command.args(check.arguments))?;
    }
    Ok(())
}

fn script(name: &str) -> PathBuf {
    Path::new(SCRIPTS).join(name)
}

/// Where Debian installs nginx.
const NGINX: &str = "/usr/sbin/nginx";

/// nginx must be there. In CI, as root on Debian, it is installed.
fn install_nginx(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    if !Path::new(NGINX).is_file() {
        browser::install_in_ci(workspace, steps, "nginx")?;
    }
    if Path::new(NGINX).is_file() {
        return Ok(());
    }
    bail!(
        "there is no {NGINX}, which balances the replicas\ninstall it, for instance with `apt-get install nginx`"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::{CHECKS, SCRIPTS};

    #[test]
    fn every_script_is_run() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(SCRIPTS);
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let scripts = names.filter(|path| path.extension().is_some_and(|extension| extension == "py"));
        let there: BTreeSet<String> =
            scripts.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        // steps of their own, and what the scripts import
        let others = ["manifests.py", "page.py", "node_client.py", "checks.py", "server.py"];
        let run: BTreeSet<String> =
            CHECKS.iter().map(|check| check.script).chain(others).map(str::to_owned).collect();
        assert_eq!(there, run);
    }
}
