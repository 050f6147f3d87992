//! What a start command may be. Strangers shape the commands that root reads here: every part is bounded, and a command
//! that is refused gives a reason for the submitter (a notice) if its credentials can be read, and a line for the log.
//!
//! Nothing here looks up a user, opens a file or starts anything.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wire::json::{self, FreeForm};
use wire::queue::Registration;
use wire::start_document::{CONTENT_TYPE, LIMIT, LinkedIdentity, START_ENDPOINT};
use wire::{EndpointId, IdentityId};

/// How far the clocks of service and manager may differ, and how long a command may have waited, in seconds.
const MAX_SKEW: u64 = 180;
/// The most linked identities of a submitter.
const MAX_IDENTITIES: usize = 256;
/// The most additional arguments, and their length in bytes.
const MAX_ARGUMENTS: usize = 64;
const MAX_ARGUMENT_LENGTH: usize = 4096;
/// The longest name of a user endpoint's directory, in bytes.
const MAX_NAME_LENGTH: usize = 128;
/// How much of what is wrong a message shows, in characters.
const MAX_SHOWN_LENGTH: usize = 200;
/// The longest user name of an identity, in characters.
const MAX_USERNAME_LENGTH: usize = 512;

/// What a submitter reads if only the log may say more, in upstream's words.
pub(crate) fn unexpected(exception: &str) -> String {
    format!(
        "({exception}) unexpected error; this is due to either an endpoint misconfiguration or a programming error.  If \
         you are able to recreate this error message at will, consider reaching out to the endpoint administrator or \
         the Globus Compute team."
    )
}

/// A message of the command queue.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub content_type: Option<&'a str>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    pub body: &'a [u8],
}

/// A start command that may be carried out, provided that its identities map to a local user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartCommand {
    /// When the service sent it, in seconds since 1970.
    pub timestamp: u64,
    pub name: String,
    pub user_options: FreeForm,
    pub user_runtime: Option<FreeForm>,
    pub arguments: Vec<String>,
    /// The service's registration answer for the user endpoint, unchanged.
    pub credentials: FreeForm,
    pub submitter: Submitter,
    /// The submitter's linked identities.
    pub identities: Vec<LinkedIdentity>,
    /// The size of its message.
    #[serde(default)]
    pub bytes: usize,
}

/// Who submitted, for messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitter {
    pub effective: IdentityId,
    pub username: String,
}

impl Submitter {
    /// The lines that end messages about this submitter.
    pub fn lines(&self) -> String {
        format!("\n  Globus effective identity: {}\n  Globus username: {}", self.effective, self.username)
    }
}

/// Why a command is not carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// For the submitter, with the credentials to send it. `None`: the command has no usable credentials.
    pub notice: Option<(Box<Registration>, String)>,
    /// For the log.
    pub log: String,
}

impl StartCommand {
    /// Reads a command, in the order in which upstream's manager checks it.
    pub fn read(message: Message<'_>, now: &Zoned) -> Result<Self, Refused> {
        let unreadable = |why: String| Refused {
            notice: None,
            log: format!("Unable to deserialize Globus Compute services command.  {why}"),
        };
        if message.content_type != Some(CONTENT_TYPE) {
            return Err(unreadable("(ValueError) Invalid message type; expecting JSON".to_owned()));
        }
        let envelope: Envelope<'_> = json::decode(message.body, LIMIT)
            .map_err(|error| unreadable(format!("(ValueError) {}", shortened(&error.to_string()))))?;
        let arguments: Arguments<'_> = part(envelope.kwargs)
            .map_err(|problem| unreadable(format!("(ValueError) kwargs: {problem}")))?
            .ok_or_else(|| unreadable("(KeyError) 'kwargs'".to_owned()))?;
        let (credentials, registration) = credentials(arguments.amqp_creds)
            .map_err(|problem| unreadable(format!("(ValueError) {problem}")))?;
        let refused = |text: String, log: Option<String>| Refused {
            log: log.unwrap_or_else(|| text.clone()),
            notice: Some((Box::new(registration.clone()), text)),
        };

        let timestamp = check_age(message.timestamp, now).map_err(|text| refused(text, None))?;
        let who = Who::read(&envelope)
            .map_err(|problem| refused(format!("Invalid server command.  {problem}"), None))?;
        let Who { submitter, identities } = who;
        let invalid = |problem: String| {
            refused(
                unexpected("InvalidCommandError"),
                Some(format!("(InvalidCommandError) {problem}{}", submitter.lines())),
            )
        };
        let word: Option<String> =
            typed(envelope.command).map_err(|problem| invalid(format!("command: {problem}")))?;
        if word.as_deref() != Some(START_ENDPOINT) {
            let word = shortened(&word.unwrap_or_default());
            return Err(invalid(format!("Unknown or invalid command: {word:?}")));
        }
        let name = check_name(arguments.name).map_err(invalid)?;
        let more = check_arguments(envelope.args).map_err(invalid)?;
        let user_options = free_form("user_opts", arguments.user_opts).map_err(invalid)?.unwrap_or_default();
        let user_runtime = free_form("user_runtime", arguments.user_runtime).map_err(invalid)?;
        Ok(Self {
            timestamp,
            name,
            user_options,
            user_runtime,
            arguments: more,
            credentials,
            submitter,
            identities,
            bytes: message.body.len(),
        })
    }

    /// The user endpoint's registration.
    pub fn registration(&self) -> Option<Registration> {
        self.credentials.read().ok()
    }

    /// The user endpoint's id.
    pub fn user_endpoint(&self) -> Option<EndpointId> {
        self.registration().map(|registration| registration.endpoint_id)
    }
}

/// The parts of a command, not yet read: one bad part must not hide the credentials with which to say so.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    command: Option<&'a RawValue>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    #[serde(borrow, default)]
    kwargs: Option<&'a RawValue>,
    #[serde(borrow, default)]
    globus_username: Option<&'a RawValue>,
    #[serde(borrow, default)]
    globus_effective_identity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    globus_identity_set: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Arguments<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_opts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_runtime: Option<&'a RawValue>,
    #[serde(borrow, default)]
    amqp_creds: Option<&'a RawValue>,
}

/// Reads a part; null counts as absent.
fn part<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<Option<T>, String> {
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(None),
        // The error may repeat what is wrong, which may be long.
        Some(text) => {
            json::decode(text.as_bytes(), LIMIT).map(Some).map_err(|error| shortened(&error.to_string()))
        }
    }
}

fn typed<T: DeserializeOwned>(raw: Option<&RawValue>) -> Result<Option<T>, String> {
    part(raw)
}

fn free_form(what: &str, raw: Option<&RawValue>) -> Result<Option<FreeForm>, String> {
    typed(raw).map_err(|problem| format!("{what}: {problem}"))
}

fn credentials(raw: Option<&RawValue>) -> Result<(FreeForm, Registration), String> {
    let form = free_form("amqp_creds", raw)?.ok_or("amqp_creds: missing")?;
    let registration =
        form.read().map_err(|error| format!("amqp_creds: {}", shortened(&error.to_string())))?;
    Ok((form, registration))
}

/// Whether the command is of now. Returns when it was sent.
fn check_age(sent: Option<u64>, now: &Zoned) -> Result<u64, String> {
    let here = u64::try_from(now.timestamp().as_second()).unwrap_or_default();
    let zone = now.time_zone();
    match sent {
        None => Err(format!(
            "Ignoring command from server\nCommand has no timestamp.\n  Endpoint timestamp: {here} ({})",
            local_time(here, zone)
        )),
        Some(sent) if sent.abs_diff(here) > MAX_SKEW => Err(format!(
            "Ignoring command from server\nCommand too old or skew between system clocks is too large.\n  \
             Command timestamp:  {sent} ({})\n  Endpoint timestamp: {here} ({})",
            local_time(sent, zone),
            local_time(here, zone)
        )),
        Some(sent) => Ok(sent),
    }
}

/// `Fri Apr 19 11:56:27 2024`.
fn local_time(seconds: u64, zone: &TimeZone) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    moment.map_or_else(
        || "no date".to_owned(),
        |moment| moment.to_zoned(zone.clone()).strftime("%a %b %e %H:%M:%S %Y").to_string(),
    )
}

/// The submitter, as the service names them.
struct Who {
    submitter: Submitter,
    identities: Vec<LinkedIdentity>,
}

impl Who {
    fn read(envelope: &Envelope<'_>) -> Result<Self, String> {
        fn needed<T: DeserializeOwned>(name: &str, raw: Option<&RawValue>) -> Result<T, String> {
            typed(raw)
                .map_err(|problem| format!("(ValueError) {name}: {problem}"))?
                .ok_or_else(|| format!("(KeyError) '{name}'"))
        }
        let effective = needed("globus_effective_identity", envelope.globus_effective_identity)?;
        let identities: Vec<LinkedIdentity> = needed("globus_identity_set", envelope.globus_identity_set)?;
        let username: String = needed("globus_username", envelope.globus_username)?;
        if identities.len() > MAX_IDENTITIES {
            return Err(format!("(ValueError) globus_identity_set: more than {MAX_IDENTITIES} identities"));
        }
        // It is shown in logs, where it must not look like a line of its own.
        let username = username
            .chars()
            .take(MAX_USERNAME_LENGTH)
            .map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter })
            .collect();
        Ok(Self { submitter: Submitter { effective, username }, identities })
    }
}

/// The name of a directory below the user's `~/.globus_compute`: only one that the service makes for user endpoints, so
/// that a command can't reach another endpoint of the user.
fn check_name(raw: Option<&RawValue>) -> Result<String, String> {
    let name: String = typed(raw)
        .map_err(|problem| format!("name: {problem}"))?
        .filter(|name: &String| !name.is_empty())
        .ok_or("Missing endpoint name")?;
    let letters =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let valid = name.len() <= MAX_NAME_LENGTH
        && name.strip_prefix("uep.").is_some_and(|rest| !rest.is_empty())
        && letters(&name)
        && !name.contains("..");
    if valid { Ok(name) } else { Err(format!("Invalid endpoint name: {:?}", shortened(&name))) }
}

fn check_arguments(raw: Option<&RawValue>) -> Result<Vec<String>, String> {
    let arguments: Vec<String> =
        typed(raw).map_err(|problem| format!("args: {problem}"))?.unwrap_or_default();
    if arguments.len() > MAX_ARGUMENTS {
        return Err(format!("args: more than {MAX_ARGUMENTS} arguments"));
    }
    match arguments.iter().find(|it| it.len() > MAX_ARGUMENT_LENGTH || it.contains('\0')) {
        Some(bad) => Err(format!("args: {:?} is too long or has a NUL", shortened(bad))),
        None => Ok(arguments),
    }
}

/// The beginning of a stranger's text, for a message. It may be a part of the command that should have been the credentials:
/// nothing of an address but its scheme is shown.
fn shortened(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([' ', '"', '\'', '`', ',']).unwrap_or(part.len());
        shown.push_str("://…");
        shown.push_str(part.get(end..).unwrap_or_default());
    }
    shown.chars().take(MAX_SHOWN_LENGTH).collect()
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
