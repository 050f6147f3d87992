//! Ids drawn at random.
#![allow(clippy::disallowed_methods, reason = "the one place that draws ids")]

use uuid::Uuid;

pub(crate) fn id() -> Uuid {
    Uuid::now_v7()
}
