//! What gilspy gives up once it is attached: capabilities(7) that looking does not take, and under sudo being root.

use std::sync::Arc;

use anyhow::{Context, Result};
use nix::unistd::geteuid;
use rustix::fs::{Access, AtFlags, Gid, Uid, accessat, fstat};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::files::{Directory, Rules};

/// What every look takes: memory is read under the first (ptrace(2), "Ptrace access mode checking"); the second opens
/// `/proc/PID/task/TID/syscall`, which only the process's own user may read otherwise (Linux `fs/proc/base.c`).
const LOOKING: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

/// The sticky bit of a directory: only owners rename and remove files in it (inode(7)).
const STICKY: u32 = 0o1000;

/// What is kept. Each thread gives up the rest for itself, or inherits that from the one that starts it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Privileges {
    kept: CapabilitySet,
    /// The user to become.
    user: Option<(Uid, Gid)>,
}

/// What a recording goes on to do.
pub(super) struct Needs<'a> {
    /// Put files into these directories.
    pub(super) directories: &'a [Arc<Directory>],
    /// How.
    pub(super) rules: &'a Rules,
    /// Attach to processes that turn up.
    pub(super) subprocesses: bool,
    /// Pass signals on to a program that it started.
    pub(super) signals: bool,
}

impl Privileges {
    /// What it takes to look at a process that gilspy is attached to.
    pub(super) fn to_look() -> Self {
        Privileges { kept: LOOKING, user: None }
    }

    /// What it takes to record.
    pub(super) fn to_record(needs: &Needs<'_>) -> Self {
        let mut kept = LOOKING;
        // Libraries are opened by what is mapped (proc_pid_map_files(5)).
        kept.set(CapabilitySet::CHECKPOINT_RESTORE, needs.subprocesses);
        kept.set(CapabilitySet::KILL, needs.signals);
        let caller = needs.rules.owner.caller();
        if let Some(user) = caller {
            let become_caller = Privileges { kept, user: Some(user) };
            if become_caller.can_place(needs) {
                return become_caller;
            }
            kept |= CapabilitySet::CHOWN;
        }
        if (Privileges { kept, user: None }).can_place(needs) {
            return Privileges { kept, user: None };
        }
        Privileges { kept: kept | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER, user: None }
    }

    /// Whether files can be put into all directories with no more than this; tried by a thread that gives up the rest.
    fn can_place(self, needs: &Needs<'_>) -> bool {
        let try_it = || {
            self.reduce().is_ok()
                && needs.directories.iter().all(|directory| {
                    is_writable(directory) && self.owns_entries(directory, needs.rules).unwrap_or(false)
                })
        };
        std::thread::scope(|scope| scope.spawn(try_it).join().unwrap_or(false))
    }

    /// Whether what is in a directory can be replaced, by what its sticky bit has it.
    fn owns_entries(self, directory: &Directory, rules: &Rules) -> Result<bool, Errno> {
        let stat = fstat(directory)?;
        let is_owner = stat.st_uid == geteuid().as_raw();
        let has_foreign_files = rules.force || (self.user.is_none() && rules.owner.caller().is_some());
        Ok(stat.st_mode & STICKY == 0 || is_owner || !has_foreign_files)
    }

    /// Gives up everything else, in this thread and in those that it starts from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn reduce(self) -> Result<()> {
        self.give_up().context("cannot give up privileges")
    }

    fn give_up(self) -> Result<(), Errno> {
        let before = capabilities(None)?;
        let kept = self.kept & before.permitted;
        bound(kept);
        if let Some((uid, gid)) = self.user.filter(|(uid, _)| uid.as_raw() != geteuid().as_raw()) {
            set_keep_capabilities(true)?;
            set_thread_groups(&[gid])?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
        }
        let inheritable = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
        match clear_ambient_capability_set() {
            // Before Linux 4.3 there is none.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
        set_no_new_privs(true)?;
        match before.permitted.is_empty() {
            true => Ok(()),
            // Who can read gilspy's memory can read what it has read.
            false => set_dumpable_behavior(DumpableBehavior::NotDumpable),
        }
    }
}

/// Takes everything else out of the bounding set, which takes CAP_SETPCAP; without that no program that gilspy could
/// start has any of it either, for want of new privileges.
fn bound(kept: CapabilitySet) {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if !kept.contains(capability) && remove_capability_from_bounding_set(capability).is_err() {
            return;
        }
    }
}

fn is_writable(directory: &Directory) -> bool {
    accessat(directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}
