//! The CPU quota of a process's control group, and how often that held it back.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::entry::ProcEntry;
use crate::sample::Throttling;

/// The control groups of a process that can have a CPU quota: its own and all above it, as they were at the start.
#[derive(Debug)]
pub struct CpuGroups {
    groups: Vec<(PathBuf, Counters)>,
}

/// What `cpu.stat` counts since the group was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    periods: u64,
    throttled_periods: u64,
    throttled: Duration,
}

impl CpuGroups {
    /// Those of a process, with what they have counted so far; `None` where gilspy cannot see any.
    pub fn of(process: &ProcEntry) -> Option<Self> {
        let groups = process.procfs().cgroups().ok()?;
        let mounts = procfs::process::Process::myself().and_then(|me| me.mountinfo()).ok()?;
        groups.into_iter().find_map(|group| {
            // Version 2 has one hierarchy, without a name (Linux Documentation/admin-guide/cgroup-v2.rst).
            let is_v2 = group.hierarchy == 0;
            if !is_v2 && !group.controllers.iter().any(|controller| controller == "cpu") {
                return None;
            }
            let mount = mounts.iter().find(|mount| match is_v2 {
                true => mount.fs_type == "cgroup2",
                false => mount.fs_type == "cgroup" && mount.super_options.contains_key("cpu"),
            })?;
            let groups = Self::along(&mount.mount_point, &mount.root, &group.pathname);
            (!groups.groups.is_empty()).then_some(groups)
        })
    }

    /// The groups from `path` up to the root of the hierarchy that is mounted.
    fn along(mount_point: &Path, mounted: &str, path: &str) -> Self {
        // A path that leaves the mounted part of the hierarchy belongs to another container.
        let below = Path::new(path).strip_prefix(mounted).unwrap_or(Path::new(""));
        let leaves = Path::new(path).components().any(|part| part == Component::ParentDir);
        let is_inside = !leaves && Path::new(path).starts_with(mounted);
        let directories = below.ancestors().map(|below| mount_point.join(below));
        let groups =
            directories.filter_map(|directory| Some((directory.clone(), Counters::read(&directory)?)));
        CpuGroups { groups: if is_inside { groups.collect() } else { Vec::new() } }
    }

    /// What has come since, of the group that was held back longest; `None` where none has a quota.
    pub fn throttling(&self) -> Option<Throttling> {
        let since = self.groups.iter().filter_map(|(directory, before)| {
            let now = Counters::read(directory)?;
            Some(Throttling {
                periods: now.periods.saturating_sub(before.periods),
                throttled_periods: now.throttled_periods.saturating_sub(before.throttled_periods),
                throttled: now.throttled.saturating_sub(before.throttled),
                quota_cpus: quota(directory),
            })
        });
        since.filter(|it| it.quota_cpus.is_some()).max_by_key(|it| (it.throttled, it.periods))
    }
}

impl Counters {
    /// `None` where the group has none, as the root has not.
    fn read(directory: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(directory.join("cpu.stat")).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            line.trim().parse::<u64>().ok()
        };
        // Nanoseconds in version 1, microseconds in version 2 (Linux kernel/sched/core.c).
        let throttled = field("throttled_usec").map(Duration::from_micros);
        Some(Counters {
            periods: field("nr_periods")?,
            throttled_periods: field("nr_throttled")?,
            throttled: throttled.or_else(|| field("throttled_time").map(Duration::from_nanos))?,
        })
    }
}

/// A group's quota in CPUs; `None` where it has none.
fn quota(directory: &Path) -> Option<f64> {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(both) => {
            let (quota, period) = both.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    let (quota, period) = (quota.trim().parse::<f64>().ok()?, period.trim().parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pid;
    use std::fs::write;

    fn stat(periods: u64, throttled: u64, time: &str) -> String {
        format!("nr_periods {periods}\nnr_throttled {throttled}\n{time}\n")
    }

    #[test]
    fn the_group_that_was_held_back_longest_counts_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let outer = root.path().join("pod");
        let inner = outer.join("container");
        std::fs::create_dir_all(&inner).unwrap();
        write(outer.join("cpu.stat"), stat(10, 4, "throttled_usec 1000")).unwrap();
        write(outer.join("cpu.max"), "150000 100000\n").unwrap();
        write(inner.join("cpu.stat"), stat(10, 0, "throttled_time 0")).unwrap();
        write(inner.join("cpu.cfs_quota_us"), "-1\n").unwrap();
        write(inner.join("cpu.cfs_period_us"), "100000\n").unwrap();
        let groups = CpuGroups::along(root.path(), "/", "/pod/container");
        assert_eq!(groups.groups.len(), 2);
        write(outer.join("cpu.stat"), stat(30, 9, "throttled_usec 251000")).unwrap();
        let expected = Throttling {
            periods: 20,
            throttled_periods: 5,
            throttled: Duration::from_millis(250),
            quota_cpus: Some(1.5),
        };
        assert_eq!(groups.throttling(), Some(expected));
    }

    #[test]
    fn groups_that_cannot_be_seen_are_none() {
        let root = tempfile::tempdir().unwrap();
        assert!(CpuGroups::along(root.path(), "/", "/../other").groups.is_empty());
        assert!(CpuGroups::along(root.path(), "/mine", "/theirs").groups.is_empty());
        assert!(CpuGroups::along(root.path(), "/", "/gone").throttling().is_none());
    }

    #[test]
    fn a_quota_holds_back_a_busy_process() {
        let group = Path::new("/sys/fs/cgroup/cpu").join(format!("gilspy-test-{}", std::process::id()));
        if std::fs::create_dir(&group).is_err() || write(group.join("cpu.cfs_quota_us"), "20000").is_err() {
            let _ = std::fs::remove_dir(&group);
            eprintln!("SKIPPED: no control group can be made in {}", group.display());
            return;
        }
        let mut busy = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let joined = write(group.join("cgroup.procs"), busy.id().to_string());
        let throttling = joined.is_ok().then(|| {
            let groups = CpuGroups::of(&ProcEntry::open(Pid::new(busy.id() as i32)).unwrap()).unwrap();
            std::thread::sleep(Duration::from_millis(600));
            groups.throttling()
        });
        busy.kill().unwrap();
        busy.wait().unwrap();
        std::fs::remove_dir(&group).unwrap();
        let Some(throttling) = throttling else { return eprintln!("SKIPPED: the group takes no process") };
        let throttling = throttling.unwrap();
        assert_eq!(throttling.quota_cpus, Some(0.2));
        assert!(throttling.throttled_periods >= 2 && throttling.throttled > Duration::from_millis(100));
    }
}
