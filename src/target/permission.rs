//! Why the kernel refuses to show a process, in words a user can act on.
//!
//! The rule is ptrace(2), "Ptrace access mode checking": same user and dumpable, or CAP_SYS_PTRACE; and
//! where the Yama module is active, its `ptrace_scope` on top (Linux `Documentation/admin-guide/LSM/Yama.rst`).

use std::fmt;
use std::path::Path;

use nix::unistd::{Uid, User};

use super::entry::ProcEntry;
use super::memory::live::LiveMemory;
use super::memory::{ReadError, ReadMemory};
use crate::text::visible;
use crate::units::{Address, Pid};

/// CAP_SYS_PTRACE's bit (capabilities(7), Linux `include/uapi/linux/capability.h`).
const CAP_SYS_PTRACE: u64 = 19;

/// What decides about access to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    user: String,
    is_root: bool,
    same_user: Option<bool>,
    has_capability: Option<bool>,
    ptrace_scope: Option<u8>,
    /// The mount option of /proc, such as `hidepid=2`, if it hides processes.
    hidden_by: Option<String>,
    /// Whether gilspy may not even read its own memory through the kernel.
    is_call_forbidden: bool,
}

impl Permission {
    /// What decides about access to this process.
    pub fn for_process(pid: Pid) -> Self {
        let own = procfs::process::Process::myself().and_then(|process| process.status()).ok();
        let target = ProcEntry::open(pid).and_then(|entry| entry.status(None)).ok();
        let uid = Uid::effective();
        Permission {
            user: user_name(uid.as_raw()),
            is_root: uid.is_root(),
            same_user: target.map(|status| status.ruid == uid.as_raw()),
            has_capability: own.map(|status| status.capeff >> CAP_SYS_PTRACE & 1 == 1),
            ptrace_scope: ptrace_scope(),
            hidden_by: hidden_by(),
            is_call_forbidden: is_call_forbidden(),
        }
    }

    /// The option of /proc that hides the process, if that is in the way.
    fn hidden_by(&self) -> Option<&str> {
        self.hidden_by.as_deref().filter(|_| self.same_user.is_none() && self.has_capability != Some(true))
    }

    fn reason(&self) -> String {
        if self.is_call_forbidden {
            return "Calling process_vm_readv(2) is forbidden to gilspy itself: by a seccomp filter, as of a container."
                .to_owned();
        }
        if let Some(option) = self.hidden_by() {
            return format!(
                "/proc is mounted with {option}: it shows other users' processes only to who has CAP_SYS_PTRACE."
            );
        }
        let reason = match (self.ptrace_scope, self.same_user, self.has_capability) {
            (Some(3), ..) => "ptrace_scope 3 forbids it to everybody until the next boot.",
            (_, _, Some(true)) => {
                "A security module (AppArmor, SELinux), seccomp or a user namespace forbids it."
            }
            (Some(2), ..) => "ptrace_scope 2 allows it only with CAP_SYS_PTRACE.",
            (_, Some(false), _) => "Reading another user's process needs CAP_SYS_PTRACE.",
            (Some(1), ..) => "ptrace_scope 1 allows it only to a parent, or with CAP_SYS_PTRACE.",
            _ => "The process has capabilities that you lack, or is not dumpable; that needs CAP_SYS_PTRACE.",
        };
        reason.to_owned()
    }

    fn advice(&self) -> &'static str {
        if self.is_call_forbidden {
            return "Docker's own filter allows it with: docker run --cap-add SYS_PTRACE … (on Linux before 4.8 only with\n\
                    --security-opt seccomp=unconfined). In Kubernetes: seccompProfile: type: Unconfined.";
        }
        match (self.ptrace_scope, self.has_capability, self.is_root) {
            (Some(3), ..) => {
                "Set kernel.yama.ptrace_scope to less and boot, or start it with `gilspy record --`."
            }
            (_, Some(false), true) => {
                "You are root without that capability, as in a container: start it with\n\
                 docker run --cap-add SYS_PTRACE …, or capabilities: add: [SYS_PTRACE] in Kubernetes."
            }
            (_, Some(true), _) => "Look at `dmesg` and the container's security options.",
            _ => {
                "Run it with sudo, or grant it: sudo setcap cap_sys_ptrace,cap_dac_read_search=ep $(which gilspy).\n\
                 In a container: docker run --cap-add SYS_PTRACE …"
            }
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capability = match self.has_capability {
            Some(true) => "have",
            Some(false) => "do not have",
            None => "may or may not have",
        };
        let scope = match self.ptrace_scope {
            Some(scope) => format!("kernel.yama.ptrace_scope is {scope}"),
            None => "kernel.yama.ptrace_scope is not set here".to_owned(),
        };
        writeln!(f, "You are user {} and {capability} CAP_SYS_PTRACE; {scope}.", self.user)?;
        writeln!(f, "{}", self.reason())?;
        write!(f, "{}", self.advice())
    }
}

/// A user's name, or the number where it has none here.
pub fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => visible(&user.name).into_owned(),
        _ => uid.to_string(),
    }
}

fn ptrace_scope() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?.trim().parse().ok()
}

/// The option `hidepid` of /proc (Linux `Documentation/filesystems/proc.rst`), unless it hides nothing.
pub(super) fn hidden_by() -> Option<String> {
    let mounts = procfs::process::Process::myself().and_then(|process| process.mountinfo()).ok()?;
    let on_top = mounts.into_iter().rfind(|mount| mount.mount_point == Path::new("/proc"))?;
    let hidden = on_top.super_options.get("hidepid")?.as_deref()?;
    (!matches!(hidden, "0" | "off")).then(|| format!("hidepid={hidden}"))
}

/// Whether not even what everybody may read can be read: gilspy's own memory.
fn is_call_forbidden() -> bool {
    let Ok(pid) = i32::try_from(std::process::id()) else { return false };
    let own = [0_u8; 1];
    let address = Address::new(own.as_ptr() as u64);
    LiveMemory::new(Pid::new(pid)).read(address, &mut [0]) == Err(ReadError::Denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(same_user: bool, has_capability: bool, ptrace_scope: Option<u8>) -> String {
        Permission {
            user: "deploy".into(),
            is_root: false,
            same_user: Some(same_user),
            has_capability: Some(has_capability),
            ptrace_scope,
            hidden_by: None,
            is_call_forbidden: false,
        }
        .to_string()
    }

    #[test]
    fn another_users_process_wants_the_capability_and_sudo_gives_it() {
        let text = permission(false, false, Some(1));
        assert!(text.contains("You are user deploy and do not have CAP_SYS_PTRACE"), "{text}");
        assert!(text.contains("another user's process") && text.contains("sudo"), "{text}");
    }

    #[test]
    fn each_ptrace_scope_is_named_with_what_it_means() {
        assert!(permission(true, false, Some(1)).contains("ptrace_scope is 1."));
        assert!(
            permission(true, false, Some(2)).contains("ptrace_scope 2 allows it only with CAP_SYS_PTRACE")
        );
        assert!(permission(true, true, Some(3)).contains("forbids it to everybody"));
        assert!(permission(true, false, None).contains("ptrace_scope is not set here"));
    }
}
