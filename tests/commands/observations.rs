//! `jetmoe mask` and `jetmoe routing`.

use std::fs;

use jetmoe::artifact::Precision;
use jetmoe::checkpoint::Checkpoint;
use jetmoe::export::{ExportOptions, export};
use jetmoe_testing::{TestContext, assert_text, assert_transcript, fixtures};
use serde_json::{Value, json};

use crate::context::context_with_artifact;

fn report(context: &TestContext, line: &str) -> Value {
    serde_json::from_str(context.run(line).succeeded()).unwrap()
}

/// Adds a q4 graph to the context's artifact.
fn add_q4(context: &TestContext) {
    let options = ExportOptions {
        precision: Precision::Q4,
        ..ExportOptions::new("jetmoe-mini", context.path("artifact"))
    };
    export(&Checkpoint::open(fixtures::checkpoint("jetmoe-mini")).unwrap(), &options).unwrap();
}

#[test]
fn texts_are_masked_as_a_batch_with_padding_and_in_steps() {
    let context = context_with_artifact("jetmoe-mini");
    let line = "jetmoe mask --model artifact --format json --cached 2 --chunk 1 --ids 1,5,9,7 --ids 1,5";
    let mask = &report(&context, line)["mask"];
    let steps = |sequence: usize| -> Vec<u64> {
        let tokens = mask["sequences"][sequence]["tokens"].as_array().unwrap();
        tokens.iter().map(|token| token["step"].as_u64().unwrap()).collect()
    };
    assert_eq!((steps(0), steps(1)), (vec![0, 0, 1, 2], vec![0, 0, 1, 2]));
    assert_eq!(mask["sequences"][1]["tokens"][1]["position"], Value::Null);
    assert_eq!(
        mask["sequences"][1]["visible"],
        json!([
            [false, false, false, false],
            [false, false, false, false],
            [false, false, true, false],
            [false, false, true, true],
        ])
    );
}

/// The picture for a terminal, which this is not: it has no colours.
#[test]
fn a_mask_is_text() {
    let context = context_with_artifact("jetmoe-mini");
    let output = context.run("jetmoe mask --model artifact --cached 2 \"In the beginning God\" Amen");
    output.succeeded();
    assert!(!output.stdout.contains('\u{1b}'));
    assert_text!(output.transcript(), []);
}

#[test]
fn pictures_and_pages_are_written_to_files() {
    let context = context_with_artifact("jetmoe-mini");
    let text = "\"In the beginning\"";
    let cases: [(&str, &str, &[u8], &[u8]); 6] = [
        ("mask", "svg", b"<svg", b"</svg>\n"),
        ("mask", "png", b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
        ("routing", "svg", b"<svg", b"</svg>\n"),
        ("routing --plot margin", "svg", b"<svg", b"</svg>\n"),
        ("routing", "png", b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
        ("routing", "html", b"<!doctype html>", b"</html>\n"),
    ];
    for (command, format, begin, end) in cases {
        let line =
            format!("jetmoe {command} --model artifact --format {format} --output out.{format} {text}");
        assert_eq!(context.run(&line).succeeded(), "", "{line}");
        let content = fs::read(context.path(&format!("out.{format}"))).unwrap();
        let is_whole =
            content.to_ascii_lowercase().starts_with(&begin.to_ascii_lowercase()) && content.ends_with(end);
        assert!(is_whole, "{line}: {:?}", String::from_utf8_lossy(&content[..40]));
    }
    // what there was keeps its permissions, and a link what it refers to
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        fs::set_permissions(context.path("out.svg"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("out.svg", context.path("link.svg")).unwrap();
        let line = format!("jetmoe mask --model artifact --format svg --output link.svg {text} Amen");
        context.run(&line).succeeded();
        assert!(fs::symlink_metadata(context.path("link.svg")).unwrap().is_symlink());
        let found = fs::metadata(context.path("out.svg")).unwrap();
        assert_eq!((found.permissions().mode() & 0o777, found.len() > 4000), (0o600, true));
        context.run(&format!("jetmoe mask --model artifact --output /dev/null {text}")).succeeded();
    }
    let line = format!("jetmoe mask --model artifact --format svg --output missing/mask.svg {text}");
    assert!(context.run(&line).refused().contains("cannot write missing/mask.svg"));
    let line = format!("jetmoe routing --model artifact --format svg --compare Amen {text}");
    assert!(context.run(&line).refused().contains("--format svg draws one routing"));
}

#[test]
fn a_routing_is_a_table() {
    let context = context_with_artifact("jetmoe-mini");
    let output = context.run("jetmoe routing --model artifact --tokens --layers 1 \"In the beginning God\"");
    output.succeeded();
    let digits = [(r"\b(\d\.\d\d)\d\d?\b", "$1[.]")];
    assert_text!(output.transcript(), digits);
}

#[test]
fn two_precisions_of_one_text_are_compared() {
    let context = context_with_artifact("jetmoe-mini");
    add_q4(&context);
    let text = "And God said, Let there be light: and there was light.";
    let line =
        format!("jetmoe routing --model artifact --compare-precision q4 --exact --format json \"{text}\"");
    let report = report(&context, &line);
    let precision = |index: usize| report["routings"][index]["model"]["precision"].clone();
    assert_eq!((precision(0), precision(1)), (json!("f32"), json!("q4")));
    let comparison = &report["comparison"];
    assert_eq!(comparison["same_tokens"], true);
    let agreement = comparison["agreement"].as_f64().unwrap();
    assert!((0.8..1.0).contains(&agreement), "{agreement}");
    let routers = comparison["routers"].as_array().unwrap();
    let changed: usize = routers.iter().map(|router| router["changed"].as_array().unwrap().len()).sum();
    let tokens = report["routings"][0]["sequences"][0].as_array().unwrap().len();
    let expected = 1.0 - changed as f64 / (tokens * routers.len()) as f64;
    assert!((agreement - expected).abs() < 1e-12, "{agreement}, {changed} changed");
}

#[test]
fn a_file_longer_than_the_positions_is_read_in_windows() {
    let context = context_with_artifact("jetmoe-mini");
    fs::write(context.path("long.txt"), "In the beginning God created the heaven. ".repeat(8)).unwrap();
    let of = |options: &str| {
        report(&context, &format!("jetmoe routing --model artifact --file long.txt --format json {options}"))
    };
    let windows = of("--window 20 --chunk 7");
    let lengths: Vec<usize> = windows["routings"][0]["sequences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tokens| tokens.as_array().unwrap().len())
        .collect();
    assert!(lengths.len() > 2 && lengths.iter().rev().skip(1).all(|length| *length == 20), "{lengths:?}");
    assert!(
        context
            .run("jetmoe routing --model artifact --file long.txt --window 0")
            .refused()
            .contains("--window is 0")
    );
    let compared = of("--compare Amen");
    assert_eq!(compared["comparison"]["agreement"], Value::Null);
}

#[test]
fn an_option_of_routing_without_effect_is_refused() {
    let context = context_with_artifact("jetmoe-mini");
    for (options, name) in [
        ("--window 20", "--window has no effect"),
        ("--plot margin", "--plot has no effect"),
        ("--plot load --format json", "--plot has no effect"),
        ("--tokens --format html", "--tokens has no effect"),
    ] {
        let line = format!("jetmoe routing --model artifact {options} Amen");
        assert!(context.run(&line).refused().contains(name), "{line}");
    }
}

#[test]
fn a_checkpoint_is_exported_and_observed_but_not_by_the_reference() {
    let context = context_with_artifact("jetmoe-mini");
    let output = context.run("jetmoe mask --model jetmoe-mini --format json --ids 1,5,9");
    assert_eq!(output.status, Some(0), "{}", output.stderr);
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(printed["mask"]["model"]["profile"], "portable");
    assert!(output.stderr.starts_with("exporting jetmoe-mini to "), "{}", output.stderr);
    assert_transcript!(context.run("jetmoe mask --model artifact --backend reference Amen"));
}

/// Before anything of its size is allocated.
#[test]
fn a_text_beyond_the_positions_has_no_mask() {
    let context = context_with_artifact("jetmoe-mini");
    fs::write(context.path("long.txt"), "a ".repeat(600)).unwrap();
    let output = context.run("jetmoe mask --model artifact --file long.txt");
    let message = output.refused();
    assert!(message.contains("more than the 512 positions of the model"), "{message}");
    let line = "jetmoe mask --model artifact --cached 1 --chunk 18446744073709551615 --ids 1,5,9";
    context.run(line).succeeded();
}

#[test]
fn steps_that_do_not_fit_are_refused() {
    let context = context_with_artifact("jetmoe-mini");
    let lines = [
        "jetmoe mask --model artifact --ids 1,5,9 --cached 3",
        "jetmoe mask --model artifact --ids 1,5,9 --chunk 0",
        "jetmoe mask --model artifact \"\"",
        "jetmoe mask --model artifact --ids 1,x",
        "jetmoe mask --model artifact --ids 1,99999999",
        "jetmoe routing --model artifact --tokens --layers 99 Amen",
    ];
    let transcripts: Vec<String> = lines
        .iter()
        .map(|line| {
            let output = context.run(line);
            output.refused();
            output.transcript()
        })
        .collect();
    assert_text!(transcripts.join("\n"), []);
}
