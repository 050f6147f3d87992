//! The title of this process in process lists: its first argument, which a running process can change in place.

use std::fs;

use manager::arguments::ArgumentMemory;

/// How many bytes a title that changes may be longer than the one that the process was executed with.
pub(crate) const ROOM: usize = 64;

/// The memory of the arguments of this process, and the title that it began with.
#[derive(Clone, Debug)]
pub(crate) struct Title {
    memory: ArgumentMemory,
    first: String,
}

/// The argument that makes room for a longer title: blanks, which process lists don't show.
pub(crate) fn room() -> String {
    " ".repeat(ROOM)
}

impl Title {
    /// `None`: the system does not say where the title stands.
    pub(crate) fn find() -> Option<Self> {
        let memory = ArgumentMemory::find()?;
        let arguments = fs::read("/proc/self/cmdline").ok()?;
        let first = arguments.split(|byte| *byte == 0).next()?;
        Some(Self { memory, first: String::from_utf8_lossy(first).into_owned() })
    }

    /// Shows the first title after this prefix, shortened if there is no room.
    pub(crate) fn show(&self, prefix: &str) {
        self.memory.show(&format!("{prefix}{}", self.first).replace('\0', ""));
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
    fn the_title_of_this_process_is_found() {
        let shown = fs::read("/proc/self/cmdline").unwrap();
        assert!(shown.starts_with(Title::find().unwrap().first.as_bytes()));
    }
}
