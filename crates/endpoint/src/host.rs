//! This machine's name, and the user that this process runs as.

use nix::unistd::{User, getuid};

/// This machine's name.
pub(crate) fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The name of the user this process runs as; the number, for a user without a name.
pub(crate) fn user_name() -> String {
    let uid = getuid();
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// Whether a manager that this process becomes starts user endpoints as other users: it is root, or may set both ids.
pub(crate) fn changes_user() -> bool {
    nix::unistd::geteuid().is_root() || may_set_ids()
}

/// Whether this process is root and can't become another user all the same.
pub(crate) fn is_bound_root() -> bool {
    nix::unistd::geteuid().is_root() && !may_set_ids()
}

fn may_set_ids() -> bool {
    const SETGID: u32 = 6;
    const SETUID: u32 = 7;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    has_capabilities(&status, &[SETGID, SETUID])
}

/// Whether a process has all these capabilities in effect, by its `/proc/PID/status`.
fn has_capabilities(status: &str, capabilities: &[u32]) -> bool {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    capabilities.iter().all(|number| effective & (1 << number) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_in_effect() {
        let status = |mask: &str| format!("Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t{mask}\n");
        assert!(has_capabilities(&status("00000000000000c0"), &[6, 7]));
        assert!(!has_capabilities(&status("0000000000000080"), &[6, 7]));
        assert!(!has_capabilities(&status("nonsense"), &[6]) && !has_capabilities("", &[6]));
    }
}
