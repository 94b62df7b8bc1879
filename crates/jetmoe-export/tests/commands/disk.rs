//! Disks that are full or may not be written to.

use std::path::{Path, PathBuf};
use std::process::Command;

use jetmoe_artifact::Artifact;

use crate::workbench::{Workbench, assert_transcript};

/// A file system in memory, there as long as this lives. Mounting needs the rights of root, which CI has.
struct MemoryDisk {
    folder: PathBuf,
}

impl MemoryDisk {
    fn mount(folder: &Path, options: &str) -> Self {
        std::fs::create_dir(folder).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output();
        let mount = mount.expect("these tests need the program `mount`");
        assert!(
            mount.status.success(),
            "cannot mount a tmpfs to test a full disk with; run the tests as root, in a container that may mount \
             (docker: --cap-add SYS_ADMIN): {}",
            String::from_utf8_lossy(&mount.stderr)
        );
        MemoryDisk { folder: folder.to_owned() }
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
    let bench = Workbench::new();
    bench.fixture("tiny");
    let _disk = MemoryDisk::mount(&bench.path("disk"), "size=1m");
    let onto = bench.run("jetmoe-export tiny --output disk");
    let below = bench.run("jetmoe-export tiny --output disk/new/artifact");
    for ended in [&onto, &below] {
        let message = ended.refused();
        assert!(message.contains("it takes 1.81 MB") && message.contains("No space left"), "{message}");
        assert!(message.contains("free some space, or choose a folder on another disk"), "{message}");
    }
    assert_eq!(bench.files("disk"), [""; 0]);
    assert_transcript!(onto, below);
}

#[test]
fn an_artifact_on_a_disk_that_is_too_full_for_another_stays_whole() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    let _disk = MemoryDisk::mount(&bench.path("disk"), "size=3m");
    bench.run("jetmoe-export tiny --output disk/artifact").succeeded();
    bench.run("jetmoe-export tiny --output disk/artifact --opset 20").refused();
    let artifact = Artifact::open(bench.path("disk/artifact")).unwrap();
    artifact.check_digests().unwrap();
    assert_eq!(artifact.manifest().graphs[0].opset, 21);
}

#[test]
fn a_disk_that_may_not_be_written_to_is_named() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    let _disk = MemoryDisk::mount(&bench.path("disk"), "ro");
    let onto = bench.run("jetmoe-export tiny --output disk");
    let below = bench.run("jetmoe-export tiny --output disk/artifact");
    assert!(onto.refused().contains("cannot write into disk"));
    assert!(below.refused().contains("cannot create disk/artifact"));
    assert_transcript!(onto, below);
}
