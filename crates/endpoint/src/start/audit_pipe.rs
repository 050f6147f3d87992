//! Checks the audit pipe that a high-assurance manager passes to its user endpoints.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};

/// The first number that is not standard input, output or error.
const FIRST: RawFd = 3;

/// Checks that this descriptor is a pipe that can be written.
pub(super) fn check(number: RawFd) -> io::Result<()> {
    let wrong = |what: &str| io::Error::other(format!("descriptor {number} {what}"));
    if number < FIRST {
        return Err(wrong("is none that a manager passes"));
    }
    // SAFETY: only its flags and its status are read; a number that is not open is an error.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let kind = fstat(descriptor).map_err(|error| wrong(&format!("is not open: {error}")))?.st_mode;
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    if SFlag::from_bits_truncate(kind) & SFlag::S_IFMT != SFlag::S_IFIFO {
        return Err(wrong("is no pipe"));
    }
    if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return Err(wrong("can't be written"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn only_a_pipe_that_can_be_written_will_do() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(check(writer.as_raw_fd()).is_ok());
        let file = File::options().write(true).open("/dev/null").unwrap();
        for (number, why) in [
            (reader.as_raw_fd(), "can't be written"),
            (file.as_raw_fd(), "is no pipe"),
            (1, "is none that a manager passes"),
            (-1, "is none that a manager passes"),
            (i32::MAX, "is not open"),
        ] {
            let error = check(number).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
