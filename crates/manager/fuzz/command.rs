//! What must hold of start commands for any bytes. The fuzzer looks for bytes for which it does not hold; the tests replay
//! its seeds.

use jiff::Zoned;
use manager::command::{Message, Refused, StartCommand};

/// The time at which the seeds are read: `timestamp` 1713545787.
const NOW: &str = "2024-04-19T16:56:27+00:00[UTC]";
const SENT: u64 = 1_713_545_787;

/// The first byte chooses content type and age, the rest is the body. A command that is accepted can reach nothing but what a
/// start may reach; one that is refused says why, on a few lines.
pub(crate) fn command(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let now: Zoned = NOW.parse().expect("it is a time");
    let content_type = [Some("application/json"), Some("application/json"), Some("text/plain"), None];
    let timestamp = [Some(SENT), Some(SENT - 180), Some(SENT + 181), None, Some(u64::MAX), Some(0)];
    let content_type = content_type[usize::from(choice & 3)];
    let timestamp = timestamp[usize::from(choice >> 2) % timestamp.len()];
    match StartCommand::read(Message { content_type, timestamp, body }, &now) {
        Ok(command) => {
            assert_eq!(content_type, Some("application/json"));
            assert!(command.timestamp.abs_diff(SENT) <= 180);
            is_harmless(&command);
            let text = serde_json::to_string(&command).expect("it is handed over in a hot restart");
            let again: StartCommand = serde_json::from_str(&text).expect("what is handed over can be read");
            assert!(again == command, "{text}");
        }
        Err(Refused { notice, log }) => {
            assert!(!log.is_empty());
            short(&log);
            if let Some((_, text)) = notice {
                short(&text);
            }
        }
    }
}

pub(crate) fn is_harmless(command: &StartCommand) {
    let name = &command.name;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!(name.starts_with("uep.") && name.len() <= 128 && name.bytes().all(letters), "{name:?}");
    assert!(!name.contains("..") && !name.ends_with('.') || name.len() > 4, "{name:?}");
    assert!(command.arguments.len() <= 64);
    assert!(command.arguments.iter().all(|it| it.len() <= 4096 && !it.contains('\0')));
    assert!(command.identities.len() <= 256);
    let lines = command.submitter.lines();
    assert_eq!(lines.lines().count(), 3, "{lines:?}");
    short(&lines);
    assert!(command.registration().is_some(), "a user endpoint could not connect");
    assert!(command.user_endpoint().is_some());
}

fn short(text: &str) {
    assert!(text.len() < 8_000, "{} bytes: {text:.300}", text.len());
}
