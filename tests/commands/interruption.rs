//! Ctrl-C, and readers that go away.

use std::io::Read;
use std::process::Command;

use crate::context::context_with_artifact;

const STREAM: &str =
    "jetmoe run --model artifact --backend tract --max-new-tokens 150 --prompt \"In the beginning\" --stream";

#[test]
fn ctrl_c_ends_a_continuation_with_what_there_is() {
    let context = context_with_artifact("jetmoe-mini");
    let mut child = context.command(STREAM).start();
    // the first piece is there, so it is generating
    let mut first = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(130), &b""[..]));
    let text = String::from_utf8([&first, output.stdout.as_slice()].concat()).unwrap();
    assert!(text.starts_with(" of") && text.ends_with('\n'), "{text:?}");

    let whole = context.run(STREAM);
    let (text, whole) = (text.trim_end_matches('\n'), whole.succeeded());
    assert!(whole.starts_with(text) && whole.len() > text.len() + 1, "{text:?} of {whole:?}");
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let context = context_with_artifact("jetmoe-mini");
    for line in [
        STREAM,
        "jetmoe run --model artifact --prompt x --max-new-tokens 2 --format json",
        "jetmoe inspect artifact",
        "jetmoe devices",
        "jetmoe --help",
    ] {
        let mut child = context.command(line).start();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{line}");
    }
}
