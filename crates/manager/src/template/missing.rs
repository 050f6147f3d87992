//! Attributes that are not there.

use std::sync::Arc;

use minijinja::Value as Shown;
use minijinja::value::{Object, ObjectRepr};

/// An attribute that is not there, whose attributes are not there either: `user_runtime.python.version` of an SDK that sends
/// no `python`. It is undefined to `default` and `is defined`, and can't be printed.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) path: String,
}

impl Missing {
    pub(super) fn is(value: &Shown) -> bool {
        value.downcast_object_ref::<Self>().is_some()
    }
}

impl Object for Missing {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Shown) -> Option<Shown> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Shown> {
        Some(Shown::from_object(Self { path: format!("{}.{key}", self.path) }))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        false
    }
}
