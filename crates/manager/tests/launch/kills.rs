//! Kills at every moment of a launch without PAM: of the launcher, which becomes the user endpoint, and of the manager.

use std::fs;
use std::time::Duration;

use manager::launch::LaunchEnd;
use nix::sys::signal::{Signal, kill};

use super::bed::{Account, Bed, ManagerProcess, launch, launch_and, wait_until};

pub(crate) const TESTS: &[super::Test] = &[
    ("kills::the_launcher_at_any_moment", true, launcher),
    ("kills::the_launcher_is_stopped_at_any_moment", true, stopped),
    ("kills::the_manager_at_any_moment", true, manager),
];

/// Moments of a launch, which takes some 30 ms on a machine that does nothing else.
fn moments() -> impl Iterator<Item = Duration> {
    [0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 70, 100, 200, 400].into_iter().map(Duration::from_millis)
}

/// Ends what the program in place of the user endpoint has left, and waits until nothing runs as the user.
fn at_rest(alicia: &Account) {
    wait_until(|| {
        for pid in alicia.processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        alicia.processes().is_empty()
    });
    for left in ["record", "sleeper"] {
        let _ = fs::remove_file(alicia.home().join(left));
    }
}

fn launcher() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        for moment in moments() {
            let launched = launch_and(&bed.request(Some(&alicia.name)), |pid| {
                std::thread::sleep(moment);
                kill(pid, signal).unwrap();
            });
            // It never says that it failed at something, and it ends.
            assert!(!matches!(launched.end, LaunchEnd::Failed(_)), "{moment:?}: {launched:?}");
            launched.wait();
            at_rest(&alicia);
        }
    }
    // What a killed launcher left in the home is no obstacle to the next.
    let launched = launch(&bed.request(Some(&alicia.name)));
    assert_eq!(launched.end, LaunchEnd::Started);
    launched.kill(Signal::SIGKILL);
    launched.wait();
}

/// A launcher that its user stops is no user endpoint until it goes on, and can be killed.
fn stopped() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    for goes_on in [true, false] {
        for moment in moments() {
            let launched = launch_and(&bed.request(Some(&alicia.name)), |pid| {
                std::thread::sleep(moment);
                kill(pid, Signal::SIGSTOP).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                kill(pid, if goes_on { Signal::SIGCONT } else { Signal::SIGKILL }).unwrap();
            });
            assert!(goes_on || !matches!(launched.end, LaunchEnd::Failed(_)), "{moment:?}: {launched:?}");
            assert!(!goes_on || launched.end == LaunchEnd::Started, "{moment:?}: {launched:?}");
            launched.kill(Signal::SIGKILL);
            launched.wait();
            at_rest(&alicia);
        }
    }
}

fn manager() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let mut executed = 0;
    for moment in moments() {
        let manager = ManagerProcess::start(&bed, &bed.request(Some(&alicia.name)));
        std::thread::sleep(moment);
        drop(manager);
        // A launcher notices, at the latest when it would execute the user endpoint, which notices, too.
        let is_launcher = |pid: &nix::unistd::Pid| {
            let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            title.starts_with(b"Endpoint starting up for") || title.windows(8).any(|it| it == b"__launch")
        };
        wait_until(|| !alicia.processes().iter().any(is_launcher));
        executed += usize::from(!alicia.processes().is_empty());
        at_rest(&alicia);
    }
    assert!(executed > 0, "no moment was late enough");
}
