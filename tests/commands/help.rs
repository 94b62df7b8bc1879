//! What `jetmoe` says about itself.

use crate::workbench::{Workbench, assert_transcript};

macro_rules! help {
    ($($name:ident: $line:literal),+ $(,)?) => {
        $(#[test]
        fn $name() {
            let ended = Workbench::new().run($line);
            ended.succeeded();
            assert_transcript!(ended);
        })+
    };
}

help! {
    help_of_jetmoe: "jetmoe --help",
    help_of_run: "jetmoe run --help",
    short_help_of_run: "jetmoe run -h",
    help_of_classify: "jetmoe classify --help",
    help_of_verify: "jetmoe verify --help",
    help_of_eval: "jetmoe eval --help",
    help_of_bench: "jetmoe bench --help",
    help_of_inspect: "jetmoe inspect --help",
    help_of_devices: "jetmoe devices --help",
    help_of_synth: "jetmoe synth --help",
    version: "jetmoe --version",
}

#[test]
fn nothing_typed_shows_help_and_counts_as_a_mistake() {
    let ended = Workbench::new().run("jetmoe");
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(2), ""));
    assert!(ended.stderr.contains("Usage: jetmoe <COMMAND>"));
}

#[test]
fn a_word_that_is_no_command_is_refused_with_one_that_is() {
    let ended = Workbench::new().run("jetmoe ran");
    assert!(ended.refused().contains("a similar subcommand exists: 'run'"));
}
