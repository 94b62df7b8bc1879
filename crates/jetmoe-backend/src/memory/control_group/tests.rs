use super::*;

/// A mounted hierarchy in a temporary folder.
struct Hierarchy {
    folder: tempfile::TempDir,
    mount: String,
}

impl Hierarchy {
    /// `root` is the group that the mount shows.
    fn new(root: &str, kind: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = format!("35 31 0:32 {root} {} rw,relatime - {kind}\n", folder.path().display());
        Hierarchy { folder, mount }
    }

    fn write(&self, group: &str, files: &[(&str, &str)]) {
        let folder = self.folder.path().join(group);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    /// Free memory of a process with these lines in `/proc/self/cgroup`.
    fn free_memory(&self, groups: &str) -> Option<u64> {
        let groups = ProcessCGroups::from_read(groups.as_bytes()).unwrap();
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n".to_owned() + &self.mount;
        free_memory_in(&groups, &MountInfos::from_read(mounts.as_bytes()).unwrap())
    }
}

fn version_2(root: &str) -> Hierarchy {
    Hierarchy::new(root, "cgroup2 cgroup2 rw,nsdelegate")
}

fn limited(limit: &'static str, used: &'static str) -> [(&'static str, &'static str); 2] {
    [("memory.max", limit), ("memory.current", used)]
}

#[test]
fn the_groups_around_the_own_one_count_too() {
    let hierarchy = version_2("/");
    hierarchy.write("", &[]);
    hierarchy.write("services", &limited("900\n", "500\n"));
    hierarchy.write("services/ours", &limited("800\n", "100\n"));
    assert_eq!(hierarchy.free_memory("0::/services/ours\n"), Some(400));
    assert_eq!(hierarchy.free_memory("0::/services\n"), Some(400));
    hierarchy.write("services", &limited("max\n", "500\n"));
    assert_eq!(hierarchy.free_memory("0::/services/ours\n"), Some(700));
    assert_eq!(hierarchy.free_memory("0::/services\n"), None, "without a limit");
}

#[test]
fn page_cache_counts_as_free_unless_it_must_be_written() {
    let hierarchy = version_2("/");
    hierarchy.write("ours", &limited("1000\n", "900\n"));
    let statistics = "anon 200\nfile 700\ninactive_file 500\nactive_file 150\nslab_reclaimable 50\nfile_dirty 60\nfile_writeback 40\n";
    hierarchy.write("ours", &[("memory.stat", statistics)]);
    assert_eq!(hierarchy.free_memory("0::/ours\n"), Some(1000 - (900 - (700 - 100))));
}

#[test]
fn the_limit_that_slows_a_group_down_counts() {
    let hierarchy = version_2("/");
    hierarchy.write("ours", &limited("1000\n", "100\n"));
    hierarchy.write("ours", &[("memory.high", "600\n")]);
    assert_eq!(hierarchy.free_memory("0::/ours\n"), Some(500));
}

#[test]
fn a_container_sees_its_own_group_as_the_root() {
    // with a namespace of its own, and without
    for (root, group) in [("/", "0::/\n"), ("/docker/1a2b", "0::/docker/1a2b\n"), ("/", "0::/../elsewhere\n")]
    {
        let hierarchy = version_2(root);
        hierarchy.write("", &limited("1000\n", "300\n"));
        assert_eq!(hierarchy.free_memory(group), Some(700), "{root} {group}");
    }
}

#[test]
fn version_1_has_other_files() {
    let hierarchy = Hierarchy::new("/", "cgroup cgroup rw,memory");
    let statistics = "inactive_file 1\ntotal_inactive_file 300\ntotal_active_file 100\ntotal_dirty 50\n";
    let files = [
        ("memory.limit_in_bytes", "1000\n"),
        ("memory.usage_in_bytes", "800\n"),
        ("memory.stat", statistics),
    ];
    hierarchy.write("ours", &files);
    assert_eq!(hierarchy.free_memory("4:cpu:/\n3:cpuset,memory:/ours\n0::/\n"), Some(1000 - (800 - 350)));
    let other_controller = Hierarchy::new("/", "cgroup cgroup rw,cpu");
    other_controller.write("", &files);
    assert_eq!(other_controller.free_memory("4:cpu:/\n3:memory:/ours\n"), None);
}

#[test]
fn more_used_than_allowed_leaves_nothing() {
    let hierarchy = version_2("/");
    hierarchy.write("ours", &limited("100\n", "900\n"));
    assert_eq!(hierarchy.free_memory("0::/ours\n"), Some(0));
}
