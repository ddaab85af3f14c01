//! Whose the files are: the effective user's, or under sudo and doas the user's who called it.

use nix::unistd::{User, geteuid};
use rustix::fs::{Gid, Uid};

/// Whose files gilspy writes.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) struct Owner {
    effective: u32,
    caller: Option<(u32, u32)>,
}

impl Owner {
    /// Whose those of this run are: under sudo or doas, the user's who called it.
    pub(in crate::commands) fn of_this_run() -> Self {
        let effective = geteuid().as_raw();
        let caller = || called_by(|name| std::env::var(name).ok()).filter(|(uid, _)| *uid != 0);
        Owner { effective, caller: if effective == 0 { caller() } else { None } }
    }

    /// Whose they are.
    pub(super) fn uid(&self) -> u32 {
        self.caller.map_or(self.effective, |(uid, _)| uid)
    }

    /// To whom files have to be given, as they are somebody else's at first.
    pub(in crate::commands) fn caller(&self) -> Option<(Uid, Gid)> {
        self.caller.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// Whether a user's symbolic links to directories are followed: one's own, and the administrator's.
    pub(super) fn trusts(&self, uid: u32) -> bool {
        uid == 0 || uid == self.effective || uid == self.uid()
    }
}

/// User and group that sudo(8) or doas(1) say.
fn called_by(variable: impl Fn(&str) -> Option<String>) -> Option<(u32, u32)> {
    // What chown(2) takes as "leave it as it is" is no user.
    let number = |name| variable(name)?.parse().ok().filter(|id| *id != u32::MAX);
    match (number("SUDO_UID"), number("SUDO_GID")) {
        (Some(uid), Some(gid)) => Some((uid, gid)),
        _ => {
            let user = User::from_name(&variable("DOAS_USER")?).ok()??;
            Some((user.uid.as_raw(), user.gid.as_raw()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_whom_sudo_or_doas_names_and_nobody_by_half() {
        let called = |variables: &[(&str, &str)]| {
            called_by(|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(called(&[("SUDO_UID", "1000"), ("SUDO_GID", "100")]), Some((1000, 100)));
        assert_eq!(called(&[("SUDO_UID", "1000")]), None);
        assert_eq!(called(&[("SUDO_UID", "-1"), ("SUDO_GID", "100")]), None);
        assert_eq!(called(&[("SUDO_UID", "4294967295"), ("SUDO_GID", "100")]), None);
        assert_eq!(called(&[("DOAS_USER", "root")]), Some((0, 0)));
        assert_eq!(called(&[("DOAS_USER", "no such user")]), None);
    }
}
