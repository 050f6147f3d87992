//! Keys in the session keyring of the manager's login don't reach a user endpoint.

use std::ffi::CStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use nix::sys::signal::Signal;

use super::bed::{Account, Bed, Launched, Record, launch};
use super::pam::Service;

pub(crate) const TESTS: &[super::Test] = &[
    ("keys::of_the_manager_stay_there_without_pam", true, without_pam),
    ("keys::of_the_manager_stay_there_with_pam", true, with_pam),
];

/// From `linux/keyctl.h`.
const SESSION_KEYRING: libc::c_int = -3;
const USER_KEYRING: libc::c_int = -4;
const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Adds a key with two bytes; whether that worked.
fn add_key(name: &CStr, keyring: libc::c_int) -> bool {
    // SAFETY: the texts end with zero and live through the call; the payload has the length that is passed.
    let key = unsafe {
        libc::syscall(libc::SYS_add_key, c"user".as_ptr(), name.as_ptr(), c"xy".as_ptr(), 2_usize, keyring)
    };
    key >= 0
}

/// Gives this process, which is the manager of the test, a session keyring with a key. `false`: there are no keys here.
fn have_secret() -> bool {
    // SAFETY: the call takes a number and no name.
    let joined =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    let has = joined >= 0 && add_key(c"launchtest-secret", SESSION_KEYRING);
    if !has {
        eprintln!("not run: this machine has no keys");
    }
    has
}

/// Uses up a user's quota of keys until it is killed.
fn fill_quota(uid: u32) -> Child {
    let mut sleep = Command::new("sleep");
    sleep.arg("1000").uid(uid);
    let fill = || {
        let mut name = [0_u8; 24];
        for number in 0..1_000_000 {
            write!(&mut name[..], "launchtest-{number}\0")?;
            let name = CStr::from_bytes_until_nul(&name).map_err(std::io::Error::other)?;
            if !add_key(name, USER_KEYRING) {
                break;
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls and formats numbers into an array.
    unsafe { sleep.pre_exec(fill) };
    sleep.spawn().unwrap()
}

/// The user endpoint sees its own keyring, and not the manager's key.
fn sees_no_secret(account: &Account, launched: &Launched) {
    let record = Record::of(&account.home(), launched);
    assert!(!record.0.contains("launchtest-secret"), "{:?}", record.all("key "));
    launched.kill(Signal::SIGTERM);
    launched.wait();
    std::fs::remove_file(account.home().join("record")).unwrap();
}

fn without_pam() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    if !have_secret() {
        return;
    }
    let request = bed.request(Some(&alicia.name));
    sees_no_secret(&alicia, &launch(&request));
    let mut full = fill_quota(alicia.uid());
    let launched = launch(&request);
    full.kill().unwrap();
    full.wait().unwrap();
    sees_no_secret(&alicia, &launched);
}

fn with_pam() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    if !have_secret() {
        return;
    }
    let service = Service::new("account required pam_permit.so\nsession required pam_permit.so\n");
    let mut request = bed.request(Some(&alicia.name));
    request.pam_service = Some(service.name.clone());
    sees_no_secret(&alicia, &launch(&request));
}
