//! What `jetmoe` says about itself.
use jetmoe_testing::assert_transcript;

use crate::context::new_context;

macro_rules! help {
    ($($name:ident: $line:literal),+ $(,)?) => {
        $(#[test]
        fn $name() {
            let output = new_context().run($line);
            output.succeeded();
            assert_transcript!(output);
        })+
    };
}

help! {
    help_of_jetmoe: "jetmoe --help",
    help_of_run: "jetmoe run --help",
    short_help_of_run: "jetmoe run -h",
    help_of_serve: "jetmoe serve --help",
    help_of_classify: "jetmoe classify --help",
    help_of_verify: "jetmoe verify --help",
    help_of_eval: "jetmoe eval --help",
    help_of_bench: "jetmoe bench --help",
    help_of_inspect: "jetmoe inspect --help",
    help_of_mask: "jetmoe mask --help",
    help_of_routing: "jetmoe routing --help",
    help_of_devices: "jetmoe devices --help",
    help_of_synth: "jetmoe synth --help",
    help_of_accept_edits: "jetmoe accept-edits --help",
    version: "jetmoe --version",
}

#[test]
fn nothing_typed_shows_help_and_counts_as_a_mistake() {
    let output = new_context().run("jetmoe");
    assert_eq!((output.status, output.stdout.as_str()), (Some(2), ""));
    assert!(output.stderr.contains("Usage: jetmoe <COMMAND>"));
}

#[test]
fn a_word_that_is_no_command_is_refused_with_one_that_is() {
    let output = new_context().run("jetmoe ran");
    assert!(output.refused().contains("a similar subcommand exists: 'run'"));
}
