//! The stages at which the kernel itself refuses, one system call at a time. A filter of system calls makes it: nothing else
//! fails at these stages on a machine that works.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::bed::{Account, Bed, ManagerProcess};
use super::system_calls::Denied;

pub(crate) const TESTS: &[super::Test] = &[
    ("denied::stages_that_the_kernel_refuses", true, refused),
    ("denied::the_log_can_not_be_written", true, full_log),
];

fn refused() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let mut request = bed.request(Some(&alicia.name));
    // Any that the manager has.
    request.audit_descriptor = Some(libc::STDIN_FILENO);
    for (status, denied) in [
        (71, Denied::call(libc::SYS_setresgid)),
        (72, Denied::call(libc::SYS_setgroups)),
        (73, Denied::call(libc::SYS_setresuid)),
        (75, Denied::call(libc::SYS_setsid)),
        // The number that the audit pipe has in every user endpoint.
        (87, Denied { second_argument: Some(4), ..Denied::call(DUPLICATE) }),
    ] {
        let _ = fs::remove_file(bed.path("request.said"));
        let manager = ManagerProcess::start_denied(&denied, &bed, &request);
        let (launcher, end) = manager.launched();
        assert!(end.contains(&format!("status: {status},")), "{status}: {end}");
        assert!(end.contains(&format!("[exit code: {status}; (PermissionError) ")), "{status}: {end}");
        // Nothing was started, and nothing of the user's goes on.
        super::bed::wait_until(|| !super::bed::runs(launcher));
        assert!(alicia.processes().is_empty(), "{status}");
        assert!(!alicia.home().join("record").exists(), "{status}");
    }
}

/// The call by which a descriptor gets a number.
#[cfg(target_arch = "x86_64")]
const DUPLICATE: libc::c_long = libc::SYS_dup2;
#[cfg(not(target_arch = "x86_64"))]
const DUPLICATE: libc::c_long = libc::SYS_dup3;

/// The disk has room for the names of the directory and the log, and none for a line.
fn full_log() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    bed.template("engine: {}\ndebug: true\n");
    let home = alicia.home();
    let options = format!("size=16k,nr_inodes=50,uid={},mode=700", alicia.uid());
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&home).status().unwrap();
    assert!(mounted.success());
    let result = std::panic::catch_unwind(|| {
        let filler = home.join("filler");
        let _ = fs::write(&filler, vec![b'x'; 1 << 20]);
        fs::set_permissions(&filler, fs::Permissions::from_mode(0o600)).unwrap();
        let (status, notice, _) = super::bed::launch(&bed.request(Some(&alicia.name))).failure();
        assert_eq!(status, 85, "{notice}");
        assert!(notice.contains("(OSError) [Errno 28] No space left on device: '"), "{notice}");
        assert!(notice.contains("endpoint.log'"), "{notice}");
    });
    Command::new("umount").arg(&home).status().unwrap();
    result.unwrap();
}
