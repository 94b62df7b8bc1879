//! Native graphs, and the instruction sets that compute them.

use std::fs;
#[cfg(target_os = "linux")]
use std::{thread::sleep, time::Duration};

use jetmoe::artifact::{Precision, Profile};
use jetmoe::checkpoint::Checkpoint;
use jetmoe::export::{ExportOptions, export};
use jetmoe_kernels::Isa;
use jetmoe_testing::{TestContext, assert_text, fixtures};
use serde_json::Value;

use crate::context::new_context;

/// A checkpoint of the fixtures, and an artifact with its 4-bit graphs of some profiles.
fn with_profiles(checkpoint: &str, profiles: &[Profile]) -> TestContext {
    let context = new_context();
    context.fixture(checkpoint);
    let source = context.path(checkpoint);
    for profile in profiles {
        let options = ExportOptions {
            precision: Precision::Q4,
            profile: *profile,
            ..ExportOptions::new(source.to_str().unwrap(), context.path("artifact"))
        };
        export(&Checkpoint::open(&source).unwrap(), &options).unwrap();
    }
    context
}

/// By how much the perplexity may differ between instruction sets. They add up in another order; where that moves a rounding
/// to 8 bits or a close choice between experts, a token differs, which was 0.006 % over the lines below. AMX multiplies bfloat16 in
/// place of 8 bits, and is compared with float32, from which it differed by 0.006 % too; the others differ from it by 0.3 %.
const PERPLEXITY_SHARE: f64 = 0.002;

/// Masks what differs from processor to processor.
const SETS: [(&str, &str); 1] =
    [(r"supported by this processor: [a-z0-9, ]+", "supported by this processor: [SETS]")];

#[test]
fn an_unavailable_instruction_set_is_refused_with_those_that_are_available() {
    let context = with_profiles("jetmoe-mini", &[Profile::Native, Profile::Portable]);
    let line = "jetmoe run --model artifact --backend ort --prompt x --max-new-tokens 1";
    // the error shows that the native graph is selected by default
    let refused = context.command(line).environment("JETMOE_KERNELS", "nonsense").run();
    assert!(refused.refused().contains("instruction set \"nonsense\" is not available"), "{refused:#?}");
    let portable = format!("{line} --profile portable");
    context.command(&portable).environment("JETMOE_KERNELS", "nonsense").run().succeeded();
    context.run(line).succeeded();
    assert_text!(refused.transcript(), SETS);
}

#[test]
fn every_instruction_set_of_this_processor_continues_alike_and_has_the_same_perplexity() {
    let context = with_profiles("jetmoe-mini", &[Profile::Native, Profile::Portable]);
    let text = fs::read_to_string(fixtures::checkpoint("jetmoe-mini").join("eval.jsonl")).unwrap();
    let lines: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(context.path("held-out.jsonl"), lines).unwrap();
    let run = "jetmoe run --model artifact --backend ort --prompt \"In the beginning\" --max-new-tokens 24";
    let eval = "jetmoe eval --model artifact --backend ort --text held-out.jsonl --format json";
    let of = |isa: Isa| {
        let with = |line| context.command(line).environment("JETMOE_KERNELS", isa.to_string()).run();
        let report: Value = serde_json::from_str(with(eval).succeeded()).unwrap();
        (with(run).succeeded().to_owned(), report["results"][0]["perplexity"].as_f64().unwrap())
    };
    let (expected_text, of_8_bits) = of(Isa::Generic);
    let exact = context.run(&format!("{eval} --profile portable --exact"));
    let exact: Value = serde_json::from_str(exact.succeeded()).unwrap();
    let of_float32 = exact["results"][0]["perplexity"].as_f64().unwrap();
    for isa in Isa::available() {
        let (text, perplexity) = of(isa);
        assert_eq!(text, expected_text, "{isa}");
        let expected = if matches!(isa, Isa::Amx { .. }) { of_float32 } else { of_8_bits };
        let difference = perplexity / expected - 1.0;
        assert!(difference.abs() < PERPLEXITY_SHARE, "{isa}: {perplexity}, expected: {expected}");
    }
}

#[test]
fn a_native_artifact_is_verified() {
    let context = with_profiles("tiny", &[Profile::Native]);
    let output = context.run("jetmoe verify --model artifact --checkpoint tiny --backend ort --format json");
    let report: Value = serde_json::from_str(output.succeeded()).unwrap();
    assert_eq!(report["passed"], true, "{report:#}");
    assert_eq!(report["backends"][0]["graph"], "onnx/native/model_q4.onnx", "{report:#}");
}

#[test]
fn devices_names_the_kernels_that_are_chosen_and_those_there_are() {
    let context = new_context();
    let available: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
    let of = |chosen: &str, line: &str| context.command(line).environment("JETMOE_KERNELS", chosen).run();
    let forced = available.iter().map(|name| (name.as_str(), name.as_str()));
    for (named, chosen) in forced.chain([("", available.last().unwrap().as_str())]) {
        let table = of(named, "jetmoe devices");
        let expected =
            format!("\nkernels: {chosen} (has {}; JETMOE_KERNELS forces one)\n", available.join(", "));
        assert!(table.succeeded().contains(&expected), "{table:#?}");
        let json = of(named, "jetmoe devices --format json");
        let report: Value = serde_json::from_str(json.succeeded()).unwrap();
        assert_eq!(report["kernels"]["chosen"], chosen);
        assert_eq!(report["kernels"]["available"], Value::from(available.clone()));
    }
    let table = of("nonsense", "jetmoe devices");
    assert!(
        table.succeeded().contains("\nkernels: none; instruction set \"nonsense\" is not available"),
        "{table:#?}"
    );
}

/// Where a process maps a file, the sum of a field of `/proc/PID/smaps` in KiB.
#[cfg(target_os = "linux")]
fn mapped(process: u32, file: &str, field: &str) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let mut is_it = false;
    let mut sum = 0;
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, size, "kB"] if is_it && name.strip_suffix(':') == Some(field) => {
                sum += size.parse::<u64>().unwrap();
            }
            [range, _permissions, ..] if range.contains('-') => is_it = line.ends_with(file),
            _ => {}
        }
    }
    sum
}

#[cfg(target_os = "linux")]
#[test]
fn two_processes_share_the_pages_of_the_weights() {
    let context = with_profiles("jetmoe-mini", &[Profile::Native]);
    let text = fixtures::checkpoint("jetmoe-mini").join("eval.jsonl");
    for backend in ["ort", "tract"] {
        let line = format!("jetmoe eval --model artifact --backend {backend} --text {}", text.display());
        let mut children = [context.command(&line).start(), context.command(&line).start()];
        let shares = |process: u32| {
            let of = |field| mapped(process, "native/model_q4.onnx_data", field);
            assert_eq!(of("Anonymous"), 0, "{backend}");
            // a page counts as private while the other process has not touched it
            of("Rss") > 100 && (of("Shared_Clean") + of("Shared_Dirty")) * 2 > of("Rss")
        };
        // they take many seconds, and read every weight soon
        while !children.iter().all(|child| shares(child.id())) {
            for child in &mut children {
                assert_eq!(child.try_wait().unwrap(), None, "{backend}: it ended, and no pages were shared");
            }
            sleep(Duration::from_millis(20));
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
