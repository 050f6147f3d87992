//! The launcher's titles in process lists.
//!
//! The kernel shows the memory in which a program's arguments arrived. The manager starts the launcher with its title as
//! the first argument, so that there is room, and later titles are written over it.

use super::request::LaunchRequest;

/// The title of the holder of a PAM session. Not longer than that of a start, which makes the room.
const SESSION: &str = "Endpoint session of ";
const STARTING: &str = "Endpoint starting up for ";

/// The title from the launcher's first instant on.
pub(super) fn starting(request: &LaunchRequest) -> String {
    // Room for the name of the manager's own user, which the manager doesn't look up.
    let user = request.local_user.as_deref().unwrap_or("the user of the endpoint manager");
    let command = super::execute::default_arguments(request);
    with_command(STARTING, user, &command)
}

fn with_command(what: &str, user: &str, command: &[String]) -> String {
    format!("{what}{user} [{}]", command.join(" ")).replace('\0', " ")
}

/// Where the arguments of this process stand.
pub(super) struct Title {
    start: usize,
    length: usize,
}

impl Title {
    /// Finds the place in the kernel's own record. Without it, the titles stay as they are.
    pub(super) fn find() -> Option<Self> {
        let record = std::fs::read_to_string("/proc/self/stat").ok()?;
        let (start, end) = argument_range(&record)?;
        Some(Self { start, length: end.checked_sub(start).filter(|length| *length > 1)? })
    }

    pub(super) fn starting(&self, user: &str, command: &[String]) {
        self.write(&with_command(STARTING, user, command));
    }

    pub(super) fn session(&self, user: &str, command: &[String]) {
        self.write(&with_command(SESSION, user, command));
    }

    fn write(&self, text: &str) {
        let shown = text.len().min(self.length - 1);
        // SAFETY: the kernel's record says that this memory holds the arguments: writable, and of this length. Nobody
        // else reads or writes it: the process has one thread, and took its arguments at its start. The last byte stays
        // zero, so that every reader of an argument finds an end.
        unsafe {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
            std::ptr::copy_nonoverlapping(text.as_ptr(), place, shown);
            std::ptr::write_bytes(place.add(shown), 0, self.length - shown);
        }
    }
}

/// The fields `arg_start` and `arg_end` of `/proc/PID/stat`, the 48th and 49th. The second field, the program's name in
/// parentheses, may hold anything.
fn argument_range(record: &str) -> Option<(usize, usize)> {
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
        let record = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (start, end) = argument_range(&record).unwrap();
        let length = std::fs::read("/proc/self/cmdline").unwrap().len();
        assert_eq!(end - start, length);
    }

    #[test]
    fn other_records() {
        for record in ["", "1 (a", "1 (a) R 1 2 3", "1 ()) ) R"] {
            assert_eq!(argument_range(record), None);
        }
    }
}
