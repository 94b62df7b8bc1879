//! Memory limits of Linux control groups, of version 1 and 2: those of containers and of services.

use std::fs;
use std::path::{Path, PathBuf};

use procfs_core::process::{MountInfo, MountInfos};
use procfs_core::{FromRead, ProcessCGroup, ProcessCGroups};

/// Names of a version's files, after the kernel's `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`.
struct Version {
    /// Whether a line of `/proc/self/cgroup` names the group of this process that limits memory.
    is_group: fn(&ProcessCGroup) -> bool,
    /// Files with a limit in bytes.
    limits: &'static [&'static str],
    usage: &'static str,
    /// Lines of `memory.stat` with memory that the kernel takes back when it needs some: the page cache and its like.
    reclaimable: &'static [&'static str],
    /// Lines with the part of it that must be written first.
    unwritten: &'static [&'static str],
}

const VERSION_1: Version = Version {
    is_group: |group| group.controllers.iter().any(|controller| controller == "memory"),
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    reclaimable: &["total_inactive_file", "total_active_file"],
    unwritten: &["total_dirty", "total_writeback"],
};

const VERSION_2: Version = Version {
    is_group: |group| group.hierarchy == 0,
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    reclaimable: &["inactive_file", "active_file", "slab_reclaimable"],
    unwritten: &["file_dirty", "file_writeback"],
};

/// Free memory in bytes under the limits of this process's group and of every group around it. `None` without limits, and
/// on other systems.
pub(super) fn free_memory() -> Option<u64> {
    let groups = ProcessCGroups::from_file("/proc/self/cgroup").ok()?;
    let mounts = MountInfos::from_file("/proc/self/mountinfo").ok()?;
    free_memory_in(&groups, &mounts)
}

fn free_memory_in(groups: &ProcessCGroups, mounts: &MountInfos) -> Option<u64> {
    let folders = mounts.iter().flat_map(|mount| {
        let version = version(mount)?;
        let group = groups.into_iter().find(|group| (version.is_group)(group))?;
        Some(folders(mount, &group.pathname).into_iter().map(move |folder| (folder, version)))
    });
    folders.flatten().filter_map(|(folder, version)| free_in(&folder, version)).min()
}

/// The version of a mounted hierarchy that limits memory.
fn version(mount: &MountInfo) -> Option<&'static Version> {
    match mount.fs_type.as_str() {
        "cgroup2" => Some(&VERSION_2),
        "cgroup" if mount.super_options.contains_key("memory") => Some(&VERSION_1),
        _ => None,
    }
}

/// The folder of a group and those of the groups around it, as far as they are mounted.
fn folders(mount: &MountInfo, group: &str) -> Vec<PathBuf> {
    // In a container, the mount may show the group itself as the root, and the group's path is that of the host.
    let below = Path::new(group).strip_prefix(&mount.root).unwrap_or(Path::new(""));
    let folder = mount.mount_point.join(below);
    let mounted = folder.ancestors().take_while(|folder| folder.starts_with(&mount.mount_point));
    mounted.map(Path::to_owned).collect()
}

/// Free memory of one group; `None` if it has no limit.
fn free_in(folder: &Path, version: &Version) -> Option<u64> {
    let number = |name: &&str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = version.limits.iter().filter_map(number).min()?;
    let used = number(&version.usage)?;
    let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let sum = |names: &[&str]| -> u64 {
        let lines = statistics.lines().filter_map(|line| line.split_once(' '));
        let wanted = lines.filter(|(name, _)| names.contains(name));
        wanted.filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok()).fold(0, u64::saturating_add)
    };
    let reclaimable = sum(version.reclaimable).saturating_sub(sum(version.unwritten));
    Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests;
