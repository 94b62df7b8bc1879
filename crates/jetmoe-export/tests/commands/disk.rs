//! Disks that are full or may not be written to.

use std::path::{Path, PathBuf};
use std::process::Command;

use jetmoe_artifact::Artifact;
use jetmoe_testing::{assert_transcript, skip};

use crate::new_context;

/// A file system in memory, mounted until it is dropped.
struct MemoryDisk {
    folder: PathBuf,
}

impl MemoryDisk {
    /// Mounting takes the rights of root, which CI has. Without them the test is reported as skipped.
    #[track_caller]
    fn mount(folder: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir(folder).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output();
        match mount {
            Ok(mount) if mount.status.success() => return Some(MemoryDisk { folder: folder.to_owned() }),
            Ok(mount) => skip(&format!(
                "a full disk is a tmpfs, which needs root to be mounted (docker: --cap-add SYS_ADMIN): {}",
                String::from_utf8_lossy(&mount.stderr).trim()
            )),
            Err(error) => skip(&format!("`mount` cannot be run: {error}")),
        }
        None
    }
}

impl Drop for MemoryDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.folder).status();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success(), "{} is still mounted", self.folder.display());
        }
    }
}

#[test]
fn a_full_disk_is_named_with_the_space_that_is_needed_and_left_empty() {
    let context = new_context();
    context.fixture("tiny");
    let Some(_disk) = MemoryDisk::mount(&context.path("disk"), "size=1m") else { return };
    let onto = context.run("jetmoe-export tiny --output disk");
    let below = context.run("jetmoe-export tiny --output disk/new/artifact");
    for output in [&onto, &below] {
        let message = output.refused();
        assert!(message.contains("it takes 1.81 MB") && message.contains("No space left"), "{message}");
        assert!(message.contains("free some space, or choose a folder on another disk"), "{message}");
    }
    assert_eq!(context.files("disk"), [""; 0]);
    assert_transcript!(onto, below);
}

#[test]
fn an_artifact_on_a_disk_that_is_too_full_for_another_stays_whole() {
    let context = new_context();
    context.fixture("tiny");
    let Some(_disk) = MemoryDisk::mount(&context.path("disk"), "size=3m") else { return };
    context.run("jetmoe-export tiny --output disk/artifact").succeeded();
    context.run("jetmoe-export tiny --output disk/artifact --opset 20").refused();
    let artifact = Artifact::open(context.path("disk/artifact")).unwrap();
    artifact.check_digests().unwrap();
    assert_eq!(artifact.manifest().graphs[0].opset, 21);
}

#[test]
fn a_disk_that_may_not_be_written_to_is_named() {
    let context = new_context();
    context.fixture("tiny");
    let Some(_disk) = MemoryDisk::mount(&context.path("disk"), "ro") else { return };
    let onto = context.run("jetmoe-export tiny --output disk");
    let below = context.run("jetmoe-export tiny --output disk/artifact");
    assert!(onto.refused().contains("cannot write into disk"));
    assert!(below.refused().contains("cannot create disk/artifact"));
    assert_transcript!(onto, below);
}
