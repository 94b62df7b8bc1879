//! `--device`: available devices, and the messages for unavailable ones.

use std::path::Path;

use jetmoe_rt::{LibraryStatus, OnnxRuntimeLibrary};
use jetmoe_testing::{CommandLine, CommandOutput, TestContext};

use crate::context::{context_with_artifact, replace_by_links};

const RUN: &str = "jetmoe run --model artifact --max-new-tokens 8 --prompt \"In the beginning\"";
const TEXT: &str = " of the reign of king Hezekiah sent\n";

/// A command on a machine whose only libonnxruntime is one for the CPU.
fn with_the_cpu_alone<'b>(context: &'b TestContext, line: &str) -> CommandLine<'b> {
    let candidates = OnnxRuntimeLibrary::candidates(None);
    let found = candidates.iter().find(|candidate| candidate.status == LibraryStatus::Found);
    let library = found.expect("a libonnxruntime; `cargo xtask setup` brings one").path.clone();
    let cache = context.path("cache/jetmoe/onnxruntime/1.0.0");
    if !cache.exists() {
        std::fs::create_dir_all(cache.parent().unwrap()).unwrap();
        std::fs::create_dir_all(context.path("nothing")).unwrap();
        std::os::unix::fs::symlink(library.parent().unwrap(), &cache).unwrap();
    }
    let mut command = context.command(line).environment("XDG_CACHE_HOME", context.path("cache"));
    for variable in ["PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
        command = command.environment(variable, context.path("nothing"));
    }
    command.environment("ORT_DYLIB_PATH", "")
}

#[test]
fn a_device_without_its_library_is_refused_with_the_way_to_it() {
    let context = context_with_artifact("jetmoe-mini");
    for (device, provider, setup) in [
        ("openvino", "OpenVINOExecutionProvider", "cargo xtask setup --openvino"),
        ("cuda", "CUDAExecutionProvider", "cargo xtask setup --gpu"),
        ("tensorrt:1", "TensorrtExecutionProvider", "cargo xtask setup --gpu"),
    ] {
        let output = with_the_cpu_alone(&context, &format!("{RUN} --device {device}")).run();
        let message = output.refused();
        let first = format!("error: no libonnxruntime with {provider} found; looked at:\n");
        assert!(message.starts_with(&first) && message.contains(setup), "{message}");
    }
}

/// A limit is known without a GPU.
#[test]
fn a_graph_that_does_not_fit_on_the_device_is_refused_with_numbers() {
    let context = context_with_artifact("jetmoe-mini");
    let message = context.run(&format!("{RUN} --device cuda --provider-option memory_limit=10000000"));
    let message = message.refused();
    let expected = "onnx/model.onnx takes about 18 MB of memory in ort on cuda:0, and 10 MB are left";
    assert!(message.contains(expected) && message.contains("raise the option memory_limit"), "{message}");
}

#[test]
fn a_named_library_without_the_provider_is_refused_and_none_takes_its_place() {
    let context = context_with_artifact("jetmoe-mini");
    let library = context.path("cache/jetmoe/onnxruntime/1.0.0");
    with_the_cpu_alone(&context, "jetmoe devices").run().succeeded();
    let library = library.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let library = library.filter(|path| path.is_file()).find(|path| is_libonnxruntime(path)).unwrap();
    let output = context.run(&format!("{RUN} --device openvino --onnxruntime {}", library.display()));
    let message = output.refused();
    assert!(message.contains("the device openvino:CPU cannot be used"), "{message}");
    assert!(message.contains("was built without OpenVINOExecutionProvider"), "{message}");
}

fn is_libonnxruntime(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with("libonnxruntime.so")
}

#[test]
fn auto_falls_back_to_the_cpu_and_says_why() {
    let context = context_with_artifact("jetmoe-mini");
    let output = with_the_cpu_alone(&context, &format!("{RUN} --device auto")).run();
    assert_eq!((output.status, output.stdout.as_str()), (Some(0), TEXT), "{output:#?}");
    let note =
        "warning: device auto takes cpu\n  not cuda:0: no libonnxruntime with CUDAExecutionProvider found";
    assert!(output.stderr.starts_with(note), "{output:#?}");
    let tract = context.run(&format!("{RUN} --device auto --backend tract"));
    assert_eq!(tract.succeeded(), TEXT);
}

#[test]
fn a_backend_that_does_not_have_the_device_is_refused() {
    let context = context_with_artifact("jetmoe-mini");
    for backend in ["tract", "reference"] {
        let output = context.run(&format!("{RUN} --backend {backend} --device cuda:1"));
        let first = format!("{backend} computes on the CPU only, and the device is cuda:1\n");
        assert!(output.refused().contains(&first), "{output:#?}");
    }
}

#[test]
fn devices_and_options_that_do_not_exist_are_refused_with_those_that_do() {
    let context = context_with_artifact("jetmoe-mini");
    let refused = |arguments: &str| context.run(&format!("{RUN} {arguments}")).refused().to_owned();
    let message = refused("--device gpu");
    assert!(message.contains("unknown device \"gpu\"; expected cpu, cuda[:N], tensorrt[:N]"), "{message}");
    let message = refused("--device openvino --provider-option cuda_graph=1");
    assert!(
        message.contains("the provider option cuda_graph=1 cannot be used with openvino:CPU"),
        "{message}"
    );
    assert!(message.contains("precision=f32|bf16|f16, cache=FOLDER or threads=N, at least 1"), "{message}");
    let message = refused("--device tensorrt --provider-option shapes_min=1x1x0");
    assert!(message.contains("expected all three"), "{message}");
    assert!(refused("--device cuda --provider-option tf32").contains("expected NAME=VALUE"));
    assert!(refused("--provider-option tf32=true").contains("--device"));
}

/// Run by `cargo xtask ci gpu`.
mod gpu {
    use super::*;

    /// Checks that the error names the missing CUDA libraries.
    fn assert_says_what_is_missing(output: &CommandOutput, device: &str) {
        let message = output.refused();
        assert!(message.starts_with(&format!("error: the device {device} cannot be used: ")), "{message}");
        assert!(
            message.contains("cannot open shared object file") && message.contains("CUDA 13"),
            "{message}"
        );
    }

    #[test]
    #[ignore = "needs `cargo xtask setup --gpu`"]
    fn a_gpu_computes_or_the_error_names_what_is_missing() {
        let context = context_with_artifact("jetmoe-mini");
        let has_driver = Path::new("/proc/driver/nvidia/version").exists();
        let auto = context.run(&format!("{RUN} --device auto"));
        assert_eq!((auto.status, auto.stdout.as_str()), (Some(0), TEXT), "{auto:#?}");
        let taken = if has_driver { "cuda:0" } else { "cpu" };
        assert!(auto.stderr.starts_with(&format!("warning: device auto takes {taken}\n")), "{auto:#?}");
        for device in ["cuda:0", "tensorrt:0"] {
            let output = context.run(&format!("{RUN} --device {device}"));
            if has_driver {
                assert_eq!(output.succeeded(), TEXT);
            } else {
                assert_says_what_is_missing(&output, device);
            }
        }
        let devices = context.run("jetmoe devices");
        let line = devices.succeeded().lines().find(|line| line.contains("CUDAExecutionProvider ")).unwrap();
        assert_eq!(line.contains(" usable "), has_driver, "{line}");
    }
}

/// Run by `cargo xtask ci openvino`.
mod openvino {
    use super::*;

    #[test]
    #[ignore = "needs `cargo xtask setup --openvino`"]
    fn it_computes_and_is_named() {
        let context = context_with_artifact("jetmoe-mini");
        let output =
            context.run(&format!("{RUN} --device openvino --provider-option threads=1 --format json"));
        let report: serde_json::Value = serde_json::from_str(output.succeeded()).unwrap();
        assert_eq!(report["text"], TEXT.trim_end());
        let runtime = report["runtime"].as_str().unwrap();
        assert!(runtime.starts_with("ort 1.24.") && runtime.ends_with(" (openvino CPU)"), "{runtime}");
        context.run("jetmoe verify --model artifact --checkpoint jetmoe-mini --device openvino").succeeded();
        let cached = context.run(&format!("{RUN} --device openvino --provider-option cache=compiled"));
        assert_eq!(cached.succeeded(), TEXT);
        assert!(!context.files("compiled").is_empty(), "no compiled graph was kept");
    }

    #[test]
    #[ignore = "needs `cargo xtask setup --openvino`"]
    fn an_artifact_of_links_runs() {
        let context = context_with_artifact("jetmoe-mini");
        replace_by_links(&context);
        assert_eq!(context.run(&format!("{RUN} --device openvino")).succeeded(), TEXT);
    }

    #[test]
    #[ignore = "needs `cargo xtask setup --openvino`"]
    fn a_missing_device_is_refused_and_the_cpu_does_not_take_its_place() {
        let context = context_with_artifact("jetmoe-mini");
        let output = context.run(&format!("{RUN} --device openvino:NPU"));
        let message = output.refused();
        assert!(
            message.contains("the device openvino:NPU cannot be used: OpenVINO has no NPU here"),
            "{message}"
        );
    }
}
