//! A process whose mapped file becomes shorter says so before the system ends it.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use jetmoe::checkpoint::MappedFile;
use jetmoe_console::{ExitStatus, run};

/// The number of the signal on Linux.
const SIGBUS: i32 = 7;

/// Set in the process that fails.
const FILE: &str = "JETMOE_TEST_MAPPED_FILE";

#[test]
fn a_mapped_file_that_becomes_shorter_is_named_as_the_cause() {
    let Some(path) = std::env::var_os(FILE) else { return check() };
    let file = File::options().write(true).open(&path).unwrap();
    run(
        || (),
        |_| None,
        || {
            let mapped = MappedFile::open(path.as_ref())?;
            assert_eq!(mapped[5000], 0);
            file.set_len(0)?;
            assert_eq!(mapped[5000], 0, "the page is still there");
            Ok(ExitStatus::Success)
        },
    );
}

/// Runs this test again, in a process that shortens the file.
fn check() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(10_000).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "mapped_files::a_mapped_file_that_becomes_shorter_is_named_as_the_cause",
            "--nocapture",
        ])
        .env(FILE, file.path())
        .output()
        .unwrap();
    let message = String::from_utf8(child.stderr).unwrap();
    assert_eq!(child.status.signal(), Some(SIGBUS), "{message}");
    assert!(
        message.contains("a mapped file became shorter") && message.contains("--private-copy"),
        "{message}"
    );
}
