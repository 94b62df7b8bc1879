//! Threads of a process that may not use every processor.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

use jetmoe_backend::LoadOptions;
use sysinfo::System;

/// The first processor that this process may use.
fn first_processor() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    list.split(['-', ',']).next().unwrap().to_owned()
}

#[test]
fn one_processor_computes_with_one_thread() {
    let output = Command::new("taskset")
        .args(["--cpu-list", &first_processor()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "with_one_processor", "--ignored"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "run by `one_processor_computes_with_one_thread` in a process of its own"]
fn with_one_processor() {
    let has_more = System::physical_core_count().unwrap() > 1;
    assert_eq!(LoadOptions::default().thread_limit(), has_more.then_some(1));
    assert_eq!(LoadOptions::default().with_threads(3).thread_limit(), Some(3), "what the caller says holds");
    assert_eq!(LoadOptions::default().with_threads(usize::MAX).thread_limit(), Some(1024));
}
