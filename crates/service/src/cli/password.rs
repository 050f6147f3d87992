//! Asks for a password on the terminal, without showing it, or reads it from the first line of standard input. It is never an
//! argument, because everybody on the machine can see those.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use anyhow::{Context, bail};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};

use super::console::complain;
use crate::operate::administration::request::Password;
use identity::password::LONGEST;

/// Asks for a new password, twice on a terminal.
pub(super) fn new(username: &str) -> anyhow::Result<Password> {
    if !std::io::stdin().is_terminal() {
        return Ok(Password(line()?));
    }
    let first = prompt(&format!("New password of {username}: "))?;
    if first != prompt("Again: ")? {
        bail!("the two are not the same");
    }
    Ok(Password(first))
}

fn prompt(text: &str) -> anyhow::Result<String> {
    // Switch echo off before the prompt, so that nothing typed is shown.
    let echo_off = EchoOff::new()?;
    write!(std::io::stderr(), "{text}").context("cannot ask for the password")?;
    let read = line();
    drop(echo_off);
    complain("");
    read
}

/// One line of standard input, without its end.
fn line() -> anyhow::Result<String> {
    let mut text = String::new();
    let limit = LONGEST as u64 + 2;
    std::io::stdin().lock().take(limit).read_line(&mut text).context("cannot read the password")?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        bail!("there is no password on standard input");
    }
    Ok(password.to_owned())
}

/// Switches off the terminal's echo until it is dropped.
struct EchoOff(Termios);

impl EchoOff {
    fn new() -> anyhow::Result<EchoOff> {
        let before = termios::tcgetattr(std::io::stdin().as_fd()).context("cannot hide what is typed")?;
        let mut without_echo = before.clone();
        without_echo.local_flags.remove(LocalFlags::ECHO);
        termios::tcsetattr(std::io::stdin().as_fd(), SetArg::TCSAFLUSH, &without_echo)
            .context("cannot hide what is typed")?;
        Ok(EchoOff(before))
    }
}

impl Drop for EchoOff {
    fn drop(&mut self) {
        // Nothing else can be done about a terminal that is gone.
        let _ = termios::tcsetattr(std::io::stdin().as_fd(), SetArg::TCSAFLUSH, &self.0);
    }
}
