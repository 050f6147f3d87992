//! One type per kind of id, so that a task's id can't be passed where an endpoint's is expected.
//!
//! All are UUIDs, written as lower-case strings with hyphens. Other spellings of a UUID (upper case,
//! without hyphens, in braces) are accepted and normalized. This module never generates an id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// The text is not a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct NotAnId;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                Uuid::try_parse(text).map(Self).map_err(|_| NotAnId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(UuidVisitor).map(Self)
            }
        }
    )+};
}

struct UuidVisitor;

impl de::Visitor<'_> for UuidVisitor {
    type Value = Uuid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Uuid, E> {
        Uuid::try_parse(text).map_err(|_| E::custom(NotAnId))
    }
}

ids! {
    /// One call of a function.
    TaskId,
    /// An endpoint of any kind: plain, manager, or user endpoint.
    EndpointId,
    /// A registered function.
    FunctionId,
    /// The tasks of one session of a submitter. It names the queue of their results.
    TaskGroupId,
    /// A person, or a client that acts for itself.
    IdentityId,
    /// An application that requests tokens. Its own identity has the same UUID.
    ClientId,
    /// A group of identities that may share a function.
    GroupId,
    /// A registered container.
    ContainerId,
    /// A batch job that runs nodes.
    BlockId,
    /// One run of an endpoint process; see [`crate::extensions`].
    RunId,
    /// One submit request; sent back to the submitter.
    RequestId,
    /// An authentication policy.
    PolicyId,
    /// The project that a policy belongs to.
    ProjectId,
    /// The subscription of an endpoint.
    SubscriptionId,
}
