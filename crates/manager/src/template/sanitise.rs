//! Turns what others sent into template values that can't become structure of the YAML that a template makes of them.
//!
//! A string becomes its JSON text, in double quotes, so that templates compare with the quoted form, as upstream's do. A
//! list or an object prints as JSON. A key that YAML might read as something else is quoted, too. Nothing here may let a
//! character of a user's text reach the output outside of double quotes.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectExt as _, ObjectRepr};
use minijinja::{Value as Shown, value::ValueKind};
use serde_json::Value;

use super::missing::Missing;
use super::print;
use super::text::{is_plain, is_plain_key, quoted, unquoted};

/// How the values of one variable appear in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// A user sent it: strings appear as JSON.
    Quoted,
    /// An administrator wrote it: as it is.
    Raw,
}

/// The value of a variable, or of one option.
pub(super) fn value(json: &Value, trust: Trust) -> Shown {
    match json {
        // A string, as upstream has it: users' strings are quoted, so that none can be mistaken for it.
        Value::Null if trust == Trust::Quoted => Shown::from("null"),
        Value::Null => Shown::from(()),
        Value::Bool(value) => Shown::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Shown::from(value),
            (_, Some(value)) => Shown::from(value),
            _ => Shown::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) if trust == Trust::Quoted => Shown::from(quoted(text)),
        Value::String(text) => Shown::from(text.as_str()),
        Value::Array(items) => {
            Shown::from_object(List(items.iter().map(|item| value(item, trust)).collect()))
        }
        Value::Object(members) => Shown::from_object(Members::of(members, trust, None)),
    }
}

/// `mapped_identity`: as the account database has it, but for the full name. Users may change that one (`chfn`), so it is
/// quoted if it could be structure.
pub(super) fn account(mapped_identity: &Value) -> Shown {
    let mut mapped_identity = mapped_identity.clone();
    if let Some(Value::String(name)) = mapped_identity.pointer_mut("/local/gecos")
        && !is_plain(name)
    {
        *name = quoted(name);
    }
    value(&mapped_identity, Trust::Raw)
}

/// A list of options.
#[derive(Debug)]
pub(super) struct List(Vec<Shown>);

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Shown) -> Option<Shown> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&print::json(&Shown::from_dyn_object(self.clone())).map_err(|_| std::fmt::Error)?)
    }
}

/// An object: options, or a variable such as `user_runtime`.
#[derive(Debug)]
pub(super) struct Members {
    members: Vec<Member>,
    /// Each member by its key, and by its key as templates see it.
    index: HashMap<String, usize>,
    /// The variable's name, if attributes that are missing may be asked for attributes of their own.
    lenient: Option<&'static str>,
}

#[derive(Debug)]
struct Member {
    /// As templates see it.
    shown_key: Shown,
    value: Shown,
}

impl Members {
    pub(super) fn of(
        members: &serde_json::Map<String, Value>,
        trust: Trust,
        lenient: Option<&'static str>,
    ) -> Self {
        let members = members.iter().map(|(key, json)| (key.clone(), value(json, trust)));
        Self::from_values(members, trust, lenient)
    }

    pub(super) fn from_values(
        members: impl IntoIterator<Item = (String, Shown)>,
        trust: Trust,
        lenient: Option<&'static str>,
    ) -> Self {
        let (mut list, mut index, mut by_shown_key) = (Vec::new(), HashMap::new(), HashMap::new());
        for (key, value) in members {
            let shown_key =
                if trust == Trust::Quoted && !is_plain_key(&key) { quoted(&key) } else { key.clone() };
            by_shown_key.entry(shown_key.clone()).or_insert(list.len());
            index.insert(key, list.len());
            list.push(Member { shown_key: Shown::from(shown_key), value });
        }
        // A user may name a member as another one's quoted form; the member of that very name is meant then.
        for (key, at) in by_shown_key {
            index.entry(key).or_insert(at);
        }
        Self { members: list, index, lenient }
    }

    fn get(&self, key: &str) -> Option<Shown> {
        self.index.get(key).map(|at| self.members[*at].value.clone())
    }
}

impl Object for Members {
    fn get_value(self: &Arc<Self>, key: &Shown) -> Option<Shown> {
        self.get(key.as_str()?)
    }

    /// What `variable.key` is; `variable['key']` and `'key' in variable` use [`Self::get_value`].
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Shown> {
        self.get(key).or_else(|| {
            let missing = Missing { path: format!("{}.{key}", self.lenient?) };
            Some(Shown::from_object(missing))
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_key_value_enumerator(|this| {
            Box::new(this.members.iter().map(|member| (member.shown_key.clone(), member.value.clone())))
        })
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.members.len())
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&print::json(&Shown::from_dyn_object(self.clone())).map_err(|_| std::fmt::Error)?)
    }
}

/// A value as it was sent, before [`value`] quoted its strings, for `tojson`. `None`: it is nested too deeply.
pub(super) fn original(value: &Shown, depth: usize) -> Option<Shown> {
    // What an option `null` became.
    if value.as_str() == Some("null") { Some(Shown::from(())) } else { plain(value, depth) }
}

fn plain(value: &Shown, depth: usize) -> Option<Shown> {
    let depth = depth.checked_sub(1)?;
    if let Some(text) = value.as_str() {
        return Some(unquoted(text).map_or_else(|| value.clone(), Shown::from));
    }
    match value.kind() {
        ValueKind::Seq => {
            let items: Option<Vec<_>> = value.try_iter().ok()?.map(|item| original(&item, depth)).collect();
            Some(Shown::from(items?))
        }
        ValueKind::Map => {
            let pairs: Option<Vec<_>> = value
                .as_object()?
                .try_iter_pairs()?
                .map(|(key, item)| Some((plain(&key, depth)?, original(&item, depth)?)))
                .collect();
            Some(Shown::from_pairs(pairs?))
        }
        _ => Some(value.clone()),
    }
}
