//! Starts real user endpoints, as root, with real accounts and the system's PAM.
//!
//! The program is its own launcher, as the endpoint's program is: `main` looks for `__launch` first. It lists and runs its
//! tests the way `cargo test` and nextest ask for. Without root only the tests of a personal manager run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod bed;
mod denied;
mod failures;
mod keys;
mod kills;
mod pam;
mod personal;
mod plain;
mod system_calls;

use std::path::Path;

type Test = (&'static str, bool, fn());

fn tests() -> Vec<Test> {
    [plain::TESTS, failures::TESTS, denied::TESTS, kills::TESTS, keys::TESTS, pam::TESTS, personal::TESTS]
        .concat()
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == manager::launch::LAUNCH => manager::launch::main(arguments),
        Some(first) if first == bed::MANAGER => {
            let request = arguments.next().unwrap();
            if let Some(denied) = arguments.next() {
                system_calls::Denied::parse(denied.to_str().unwrap()).install();
            }
            bed::manager(Path::new(&request))
        }
        _ => {}
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        for (name, ..) in tests().iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let chosen = |name: &str| {
        filters.is_empty()
            || filters
                .iter()
                .any(|filter| if has("--exact") { name == *filter } else { name.contains(filter.as_str()) })
    };
    for (name, needs_root, test) in tests().into_iter().filter(|(name, ..)| chosen(name)) {
        if needs_root && !nix::unistd::Uid::current().is_root() {
            eprintln!("{name}: not run: it makes accounts, so it needs root");
            continue;
        }
        eprintln!("{name}");
        test();
    }
}
