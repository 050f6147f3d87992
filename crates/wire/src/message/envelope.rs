//! The outer object of a message, `{"message_type":…,"data":…}`. It is parsed in one pass if the type comes first, as usual.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    Container, ContainerImage, DecodeError, ManagerStatusReport, Message, StatusReport, Task, TaskCancel,
    TaskResult, TaskTransition, VERSION,
};
use crate::json::{self, Malformed};

pub(super) fn encode(kind: &str, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.push(VERSION);
    out.extend_from_slice(br#"{"message_type":""#);
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(br#"","data":"#);
    write(&mut out);
    out.push(b'}');
    out
}

pub(super) fn decode(bytes: &[u8], limit: usize) -> Result<Message<'_>, DecodeError> {
    let text = json::utf8(bytes, limit)?;
    match decode_text(text) {
        Err(DecodeError::Malformed(Malformed::NotJson { at, problem })) => {
            match json::without_infinities(text) {
                Some(rewritten) => decode_text(&rewritten).map(Message::into_owned),
                None => Err(Malformed::NotJson { at, problem }.into()),
            }
        }
        other => other,
    }
}

fn decode_text(text: &str) -> Result<Message<'_>, DecodeError> {
    match json::decode_str(text)? {
        Envelope::Read(message) => Ok(*message),
        Envelope::UnknownType(name) => Err(DecodeError::UnknownType(name)),
        Envelope::TypeLast(kind, data) => {
            read_late(kind, data.get()).map_err(|error| error.under("data").into())
        }
    }
}

fn read_late(kind: Kind, data: &str) -> Result<Message<'_>, Malformed> {
    Ok(match kind {
        Kind::Task => Message::Task(json::decode_str(data)?),
        Kind::TaskCancel => Message::TaskCancel(json::decode_str(data)?),
        Kind::Result => Message::Result(json::decode_str(data)?),
        Kind::StatusReport => Message::StatusReport(json::decode_str(data)?),
        Kind::ManagerStatusReport => Message::ManagerStatusReport(json::decode_str(data)?),
        Kind::TaskTransition => Message::TaskTransition(json::decode_str(data)?),
        Kind::Container => Message::Container(json::decode_str(data)?),
        Kind::ContainerImage => Message::ContainerImage(json::decode_str(data)?),
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Task,
    TaskCancel,
    Result,
    StatusReport,
    ManagerStatusReport,
    TaskTransition,
    Container,
    ContainerImage,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "task" => Self::Task,
            "task_cancel" => Self::TaskCancel,
            "result" => Self::Result,
            "ep_status_report" => Self::StatusReport,
            "manager_status_report" => Self::ManagerStatusReport,
            "task_transition" => Self::TaskTransition,
            "container" => Self::Container,
            "containerimage" => Self::ContainerImage,
            _ => return None,
        })
    }
}

enum Envelope<'a> {
    Read(Box<Message<'a>>),
    TypeLast(Kind, &'a RawValue),
    UnknownType(String),
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    MessageType,
    Data,
    #[serde(other)]
    Other,
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        use serde::de::Error;
        let mut kind = None;
        let mut unread = None;
        let mut message = None;
        while let Some(key) = map.next_key()? {
            match key {
                Key::MessageType if kind.is_some() => return Err(A::Error::duplicate_field("message_type")),
                Key::Data if message.is_some() || unread.is_some() => {
                    return Err(A::Error::duplicate_field("data"));
                }
                Key::MessageType => kind = Some(map.next_value::<KindOrName>()?),
                Key::Data => match &kind {
                    None => unread = Some(map.next_value::<&'de RawValue>()?),
                    Some(KindOrName::Kind(kind)) => message = Some(map.next_value_seed(Body(*kind))?),
                    Some(KindOrName::Name(_)) => drop(map.next_value::<IgnoredAny>()?),
                },
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match (kind, message, unread) {
            (None, ..) => Err(A::Error::missing_field("message_type")),
            (Some(KindOrName::Name(name)), ..) => Ok(Envelope::UnknownType(name)),
            (_, Some(message), _) => Ok(Envelope::Read(Box::new(message))),
            (Some(KindOrName::Kind(kind)), None, Some(unread)) => Ok(Envelope::TypeLast(kind, unread)),
            (Some(KindOrName::Kind(_)), None, None) => Err(A::Error::missing_field("data")),
        }
    }
}

enum KindOrName {
    Kind(Kind),
    Name(String),
}

impl<'de> Deserialize<'de> for KindOrName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = KindOrName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a message type")
            }

            fn visit_str<E>(self, name: &str) -> Result<KindOrName, E> {
                Ok(match Kind::named(name) {
                    Some(kind) => KindOrName::Kind(kind),
                    None => KindOrName::Name(name.chars().take(50).collect()),
                })
            }
        }
        deserializer.deserialize_str(Name)
    }
}

struct Body(Kind);

impl<'de> DeserializeSeed<'de> for Body {
    type Value = Message<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Message<'de>, D::Error> {
        Ok(match self.0 {
            Kind::Task => Message::Task(Task::deserialize(deserializer)?),
            Kind::TaskCancel => Message::TaskCancel(TaskCancel::deserialize(deserializer)?),
            Kind::Result => Message::Result(TaskResult::deserialize(deserializer)?),
            Kind::StatusReport => Message::StatusReport(StatusReport::deserialize(deserializer)?),
            Kind::ManagerStatusReport => {
                Message::ManagerStatusReport(ManagerStatusReport::deserialize(deserializer)?)
            }
            Kind::TaskTransition => Message::TaskTransition(TaskTransition::deserialize(deserializer)?),
            Kind::Container => Message::Container(Container::deserialize(deserializer)?),
            Kind::ContainerImage => Message::ContainerImage(ContainerImage::deserialize(deserializer)?),
        })
    }
}
