//! The lines of the audit log of a high-assurance manager.
//!
//! A user endpoint writes one packet per event to a pipe of its own. The manager writes who sent it: the part of a line up
//! to `uep=...` is the manager's, so a user endpoint can write no record in another's name, and no second line; nothing in it
//! controls the terminal of whoever reads it.

use jiff::Zoned;
use wire::EndpointId;

use crate::printable;

/// The size of the longest packet, in bytes: that of a page, which a pipe carries as a whole.
pub const PACKET: usize = 4096;

/// Which user endpoint writes to a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    pub uid: u32,
    pub pid: i32,
    pub user_endpoint: EndpointId,
}

/// Which part of a session a manager's own line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    Begins,
    Ends,
    /// The manager executes its program again; nothing is lost in between.
    Restarts,
}

/// The manager's line about its own session.
pub fn session_line(now: &Zoned, uid: u32, pid: u32, manager: EndpointId, session: Session) -> Vec<u8> {
    let words = match session {
        Session::Begins => "Begin MEP session =====",
        Session::Ends => "End MEP session -----",
        Session::Restarts => "End MEP session [hot restart] .....",
    };
    format!("{} uid={uid} pid={pid} eid={manager} {words}\n", time(now)).into_bytes()
}

/// The line of a user endpoint's packet. `None`: the packet is empty.
pub fn record_line(now: &Zoned, writer: Writer, packet: &[u8]) -> Option<Vec<u8>> {
    let Writer { uid, pid, user_endpoint } = writer;
    let mut line = format!("{} uid={uid} pid={pid} uep={user_endpoint} ", time(now)).into_bytes();
    let head = line.len();
    let words: String =
        String::from_utf8_lossy(packet).chars().filter(|letter| !matches!(letter, '\r' | '\0')).collect();
    line.extend_from_slice(printable::one_line(&words).as_bytes());
    (line.len() > head).then(|| {
        line.push(b'\n');
        line
    })
}

/// Whether a packet has the form of a record: the function, the task and the block it is about. A user endpoint writes nothing
/// else. The function may be left open: of a task that an earlier run received, this run does not know it.
pub fn is_record(packet: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(packet) else { return false };
    let mut words = text.split(' ');
    let mut next = |name: &str| words.next().and_then(|word| word.strip_prefix(name));
    let is_id = |id: Option<&str>| id.is_some_and(|id| id.len() == 36 && id.parse::<EndpointId>().is_ok());
    let function = next("fid=");
    (function == Some("") || is_id(function)) && is_id(next("tid=")) && next("bid=").is_some()
}

/// Local time with microseconds and the offset from UTC.
fn time(now: &Zoned) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "00000000-0000-4000-8000-000000000002";

    fn now() -> Zoned {
        "2024-04-19T11:56:27.000123-05:00[America/Chicago]".parse().unwrap()
    }

    fn writer() -> Writer {
        Writer { uid: 1001, pid: 77, user_endpoint: ID.parse().unwrap() }
    }

    #[test]
    fn the_lines_of_the_contract() {
        for (session, words) in [
            (Session::Begins, "Begin MEP session ====="),
            (Session::Ends, "End MEP session -----"),
            (Session::Restarts, "End MEP session [hot restart] ....."),
        ] {
            let line = session_line(&now(), 0, 5, ID.parse().unwrap(), session);
            let expected = format!("2024-04-19T11:56:27.000123-05:00 uid=0 pid=5 eid={ID} {words}\n");
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
        let line = record_line(&now(), writer(), b"fid=f tid=t bid= RECEIVED").unwrap();
        let expected =
            format!("2024-04-19T11:56:27.000123-05:00 uid=1001 pid=77 uep={ID} fid=f tid=t bid= RECEIVED\n");
        assert_eq!(String::from_utf8(line).unwrap(), expected);
        let line =
            record_line(&now(), writer(), b"fid=f\x1b[1A\x1b[2K\tt\xff\xc2\x85\xe2\x80\xa8u\nv\r").unwrap();
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line.split_once(&format!("{ID} ")).unwrap().1, "fid=f?[1A?[2K?t???u v\n");
        assert_eq!(record_line(&now(), writer(), b""), None);
        assert_eq!(record_line(&now(), writer(), b"\r\0"), None);
    }

    #[test]
    fn what_is_a_record() {
        for (packet, expected) in [
            (format!("fid={ID} tid={ID} bid= RECEIVED"), true),
            (format!("fid={ID} tid={ID} bid=3 jid=77 RUNNING"), true),
            (format!("fid={ID} tid={ID} bid= FAILED - Function not permitted on endpoint"), true),
            (format!("fid= tid={ID} bid= EXEC_END"), true),
            (format!("fid=x tid={ID} bid= EXEC_END"), false),
            (format!("tid={ID} bid= EXEC_END"), false),
            (format!("fid={ID} tid= bid= RECEIVED"), false),
            (format!("fid={ID}{ID} tid={ID} bid= RECEIVED"), false),
            (format!("tid={ID} fid={ID} bid= RECEIVED"), false),
            (format!("fid={ID} tid={ID} RECEIVED"), false),
            ("x".repeat(PACKET), false),
            (String::new(), false),
        ] {
            assert_eq!(is_record(packet.as_bytes()), expected, "{packet}");
        }
        assert!(!is_record(b"fid=\xff"));
    }

    proptest! {
        /// Whatever a user endpoint writes: one line, which begins with who wrote it.
        #[test]
        fn a_user_endpoint_writes_one_line_in_its_own_name(packet in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(line) = record_line(&now(), writer(), &packet) {
                prop_assert!(line.ends_with(b"\n"));
                prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
                prop_assert!(!line.contains(&b'\r') && !line.contains(&0));
                let head = format!("2024-04-19T11:56:27.000123-05:00 uid=1001 pid=77 uep={ID} ");
                prop_assert!(line.starts_with(head.as_bytes()));
                let text = String::from_utf8(line).unwrap();
                let controls = |it: char| it.is_control() || it == '\u{2028}';
                prop_assert!(!text.trim_end_matches('\n').contains(controls));
            }
        }
    }
}
