//! Checkpoints by their hub ids, from a local hub.

use jetmoe_artifact::Artifact;
use jetmoe_testing::fixtures;
use jetmoe_testing::hub::{COMMIT, Contents, ID, LATER_COMMIT, MockHub};

use crate::new_context;

#[test]
fn the_manifest_keeps_the_commit_of_a_hub_id() {
    let contents = Contents::of_folder(&fixtures::checkpoint("tiny"));
    let later_files = contents.files.clone();
    let hub = MockHub::serve(Contents { later_files, revisions: vec!["v1"], ..contents });
    let context = new_context();
    for (options, commit) in [("", LATER_COMMIT), (" --revision v1", COMMIT)] {
        let line = format!("jetmoe-export {ID} --output {commit}{options}");
        let command = context.command(&line).environment("HF_ENDPOINT", &hub.endpoint);
        command.environment("HF_HUB_OFFLINE", "0").run().succeeded();
        let artifact = Artifact::open(context.path(commit)).unwrap();
        let checkpoint = &artifact.manifest().checkpoint;
        assert_eq!((checkpoint.source.as_str(), checkpoint.revision.as_deref()), (ID, Some(commit)));
    }
}
