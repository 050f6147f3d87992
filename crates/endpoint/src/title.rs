//! The title of this process in process lists: its first argument, which a running process can change in place.

use std::fs;

/// How many bytes a title that changes may be longer than the one that the process was executed with.
pub(crate) const ROOM: usize = 64;

/// The memory of the arguments of this process, and the title that it began with.
#[derive(Clone, Debug)]
pub(crate) struct Title {
    start: usize,
    length: usize,
    first: String,
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
        let length = end.checked_sub(start).filter(|length| start > 0 && *length > 1)?;
        let arguments = fs::read("/proc/self/cmdline").ok()?;
        let first = arguments.split(|byte| *byte == 0).next()?;
        Some(Self { start, length, first: String::from_utf8_lossy(first).into_owned() })
    }

    /// Shows the first title after this prefix, shortened if there is no room.
    pub(crate) fn show(&self, prefix: &str) {
        let mut bytes: Vec<u8> = prefix
            .bytes()
            .chain(self.first.bytes())
            .filter(|byte| *byte != 0)
            .take(self.length - 1)
            .collect();
        bytes.resize(self.length, 0);
        // SAFETY: the kernel says that the arguments of this process lie there, in its own writable stack, with this length.
        // Only the standard library reads them, when it is asked for arguments, and then finds zeros at the worst.
        unsafe {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, self.length);
        }
    }
}

/// `12,345`, as upstream writes seconds in titles.
pub(crate) fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (172_800, "172,800"), (1_000_000, "1,000,000")]
        {
            assert_eq!(with_commas(number), text);
        }
    }

    #[test]
    fn the_memory_of_the_title_is_found() {
        let title = Title::find().unwrap();
        let shown = fs::read("/proc/self/cmdline").unwrap();
        assert!(shown.starts_with(title.first.as_bytes()));
        assert_eq!(shown.len(), title.length);
    }
}
