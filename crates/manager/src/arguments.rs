//! The memory in which this process's arguments arrived. The kernel shows it in process lists, so a running process can
//! change its title there.

/// Where the arguments stand.
#[derive(Clone, Copy, Debug)]
pub struct ArgumentMemory {
    start: usize,
    length: usize,
}

impl ArgumentMemory {
    /// Finds it in the kernel's own record. `None`: titles stay as they are.
    pub fn find() -> Option<Self> {
        let record = std::fs::read_to_string("/proc/self/stat").ok()?;
        let (start, end) = range(&record)?;
        Some(Self { start, length: end.checked_sub(start).filter(|length| *length > 1)? })
    }

    /// Shows `text` in place of all arguments, shortened if there is no room.
    pub fn show(self, text: &str) {
        let shown = text.len().min(self.length - 1);
        // SAFETY: the kernel's record says that this memory holds the arguments: in this process's own writable stack, and
        // of this length. Only the standard library reads them, when it is asked for arguments, and then finds this text or
        // zeros. The last byte stays zero, so that every reader of an argument finds an end.
        unsafe {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
            std::ptr::copy_nonoverlapping(text.as_ptr(), place, shown);
            std::ptr::write_bytes(place.add(shown), 0, self.length - shown);
        }
    }
}

/// The fields `arg_start` and `arg_end` of `/proc/PID/stat`, the 48th and 49th. The second field, the program's name in
/// parentheses, may hold anything.
fn range(record: &str) -> Option<(usize, usize)> {
    let (_, rest) = record.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(45);
    let start = fields.next()?.parse().ok()?;
    let end = fields.next()?.parse().ok()?;
    (start != 0).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_this_process_names_its_arguments() {
        let length = std::fs::read("/proc/self/cmdline").unwrap().len();
        assert_eq!(ArgumentMemory::find().unwrap().length, length);
    }

    #[test]
    fn other_records() {
        for record in ["", "1 (a", "1 (a) R 1 2 3", "1 ()) ) R"] {
            assert_eq!(range(record), None);
        }
    }
}
