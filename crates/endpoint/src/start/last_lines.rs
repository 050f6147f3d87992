//! The last lines of what a program prints, in bounded memory, without what a terminal would obey.

use std::collections::VecDeque;

/// The most lines, and the most characters of one.
const LINES: usize = 20;
const LENGTH: usize = 200;

#[derive(Debug, Default)]
pub(super) struct LastLines {
    ended: VecDeque<String>,
    /// The line that has not ended.
    open: Vec<u8>,
}

impl LastLines {
    /// Adds some output. A carriage return ends a line, too: programs draw the progress of a download with it.
    pub(super) fn add(&mut self, output: &[u8]) {
        for &byte in output {
            match byte {
                b'\n' | b'\r' => self.end_line(),
                // A character has at most four bytes.
                _ if self.open.len() < 4 * LENGTH => self.open.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = printable(&std::mem::take(&mut self.open));
        if line.trim().is_empty() {
            return;
        }
        if self.ended.len() == LINES {
            self.ended.pop_front();
        }
        self.ended.push_back(line);
    }

    pub(super) fn joined(&self, separator: &str) -> String {
        let open = printable(&self.open);
        let open = (!open.trim().is_empty()).then_some(open);
        let skipped = (self.ended.len() + usize::from(open.is_some())).saturating_sub(LINES);
        self.ended.iter().chain(&open).skip(skipped).map(String::as_str).collect::<Vec<_>>().join(separator)
    }
}

/// The text of a line, without escape sequences and other controls.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown = String::new();
    let mut rest = text.chars().peekable();
    while let Some(it) = rest.next() {
        match it {
            // ESC [ … letter: colours and movements of the cursor.
            '\u{1b}' if rest.next_if_eq(&'[').is_some() => {
                while rest.next_if(|it| !('@'..='~').contains(it)).is_some() {}
                rest.next();
            }
            '\t' => shown.push(' '),
            it if it.is_control() => {}
            it => shown.push(it),
        }
    }
    shown.trim_end().chars().take(LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(output: &str) -> String {
        let mut last = LastLines::default();
        // However it arrives.
        for some in output.as_bytes().chunks(3) {
            last.add(some);
        }
        last.joined("|")
    }

    #[test]
    fn lines_are_kept_as_a_person_reads_them() {
        assert_eq!(of(""), "");
        assert_eq!(of("one\n\ntwo\r\n 10 %\r 20 %\rthree"), "one|two| 10 %| 20 %|three");
        assert_eq!(of("\u{1b}[1;32mgreen\u{1b}[0m\tü\u{7}\n"), "green ü");
        assert_eq!(of(&"x".repeat(5_000)), "x".repeat(LENGTH));
        let many: String = (0..50).map(|number| format!("{number}\n")).collect();
        assert_eq!(of(&many), (30..50).map(|it: i32| it.to_string()).collect::<Vec<_>>().join("|"));
        assert!(of(&format!("{many}open")).ends_with("49|open"));
    }
}
