//! The title of this process in process lists: its first argument, which a running process can change in place.

use std::fs;

/// How many bytes a title that changes may be longer than the one that the process was executed with.
pub(crate) const ROOM: usize = 64;

/// The memory of the arguments of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Title {
    start: usize,
    length: usize,
}

/// The argument that makes room for a longer title: blanks, which process lists don't show.
pub(crate) fn room() -> String {
    " ".repeat(ROOM)
}

impl Title {
    /// Finds the memory. `None`: the system does not say where it is.
    pub(crate) fn find() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The process's name may contain parentheses.
        let (_, after) = stat.rsplit_once(')')?;
        let mut fields = after.split_ascii_whitespace();
        // The state is the 3rd field; the arguments lie from the 48th to the 49th.
        let start: usize = fields.nth(45)?.parse().ok()?;
        let end: usize = fields.next()?.parse().ok()?;
        let length = end.checked_sub(start).filter(|length| start > 0 && *length > 0)?;
        Some(Self { start, length })
    }

    /// Shows the first argument after this prefix.
    pub(crate) fn prefix(self, prefix: &str) {
        let shown = fs::read("/proc/self/cmdline").unwrap_or_default();
        let first = shown.split(|byte| *byte == 0).next().unwrap_or_default();
        self.show(&format!("{prefix}{}", String::from_utf8_lossy(first)));
    }

    /// Shows this title, shortened if there is no room.
    pub(crate) fn show(self, title: &str) {
        let mut bytes: Vec<u8> = title.bytes().filter(|byte| *byte != 0).take(self.length - 1).collect();
        bytes.resize(self.length, 0);
        // SAFETY: the kernel says that the arguments of this process lie there, in its own writable stack. Rust's standard
        // library copies arguments when it is asked for them, and this process asks no more.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start as *mut u8, self.length) };
    }
}
