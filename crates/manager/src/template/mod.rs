//! Makes the configuration of a user endpoint: checks a submitter's options and renders the administrator's template.
//!
//! Runs after privileges are dropped, with the rights of the local user. What a user passes arrives in the YAML as that one
//! value, never as structure ([`sanitise`]). One rendering is bounded in time, memory, output and depth ([`limits`]): the
//! engine counts steps, and [`confined`] ends a rendering that exceeds what can't be counted.
//!
//! Jinja2 is reproduced where templates of real sites use it. Lists, objects and undefined attributes differ from
//! upstream's on purpose; `tests/template_vectors.rs` lists how.

mod confined;
mod engine;
mod failure;
mod files;
mod filters;
mod limits;
mod missing;
mod print;
mod sanitise;
mod text;

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use minijinja::Value as Shown;
use serde_json::{Value, json};
use wire::json::Object;

pub use confined::render;
pub use files::read;

pub use crate::site_files::RenderError;

use sanitise::{Members, Trust};

/// Names that templates get from the manager; a submitter's option may have none of them.
pub const RESERVED: [&str; 4] = ["parent_config", "user_runtime", "mapped_identity", "_GC"];

/// Everything one rendering uses.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// Where the template was read from: further templates come from its directory.
    pub template_path: &'a Path,
    pub template_text: &'a str,
    /// What options must satisfy. `None` or an empty object: anything goes.
    pub schema: Option<&'a Value>,
    pub user_options: &'a Object,
    /// The submitter's Python and platform.
    pub user_runtime: Option<&'a Value>,
    /// The manager's configuration. Its strings are not quoted.
    pub parent_config: &'a Value,
    /// As [`mapped_identity`] makes it.
    pub mapped_identity: &'a Value,
    /// The user endpoint's environment, for `_GC.env`.
    pub environment: &'a BTreeMap<String, String>,
}

/// A local user, as the account database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub gecos: String,
    pub shell: String,
    pub home: String,
}

/// The variable `mapped_identity` of templates.
pub fn mapped_identity(account: &Account, globus_id: Option<&str>) -> Value {
    json!({
        "local": {
            "uname": account.name,
            "uid": account.uid,
            "gid": account.gid,
            "groups": account.groups,
            "gecos": account.gecos,
            "shell": account.shell,
            "dir": account.home,
        },
        "globus": {"id": globus_id},
    })
}

/// Checks and renders in this process, without bounds on time and memory but those of the engine: for [`render`]'s child, and
/// for tests that try any input.
pub fn render_unconfined(inputs: &Inputs<'_>) -> Result<String, RenderError> {
    if let Some(word) = RESERVED.iter().find(|word| inputs.user_options.contains_key(**word)) {
        let text = format!("'{word}' is a reserved word and cannot be passed in via user config");
        return Err(RenderError::new("ValueError", text));
    }
    if let Some(schema) = inputs.schema {
        crate::schema::check(schema, inputs.user_options)?;
    }
    let failed = |error: &minijinja::Error| {
        failure::in_upstreams_terms(error, inputs.template_path, inputs.template_text)
    };
    let engine = engine::engine(files::Directory::of(inputs.template_path));
    let name = inputs.template_path.file_name().and_then(|name| name.to_str()).unwrap_or("template");
    let render = || {
        let template = engine.template_from_named_str(name, inputs.template_text)?;
        let mut text = Bounded { text: Vec::new() };
        template.render_captured_to(variables(inputs), &mut text).map(|_| text)
    };
    // The engine panics at a few templates that are wrong, such as `{% import "a" as "b" %}`.
    let rendered = catch_unwind(AssertUnwindSafe(render)).map_err(|_| {
        let text = "the template engine can't read the template: after `as`, `set` and `for` must stand a name. The \
                    administrator must mend it.";
        RenderError::new("TemplateSyntaxError", text)
    })?;
    let text = rendered.map_err(|error| failed(&error))?;
    String::from_utf8(text.text).map_err(|error| RenderError::new("UnicodeDecodeError", error.to_string()))
}

/// The variables of a template: the options, over which the reserved names win.
fn variables(inputs: &Inputs<'_>) -> Shown {
    let none = serde_json::Map::new();
    let runtime = inputs.user_runtime.and_then(Value::as_object).unwrap_or(&none);
    let runtime = Shown::from_object(Members::of(runtime, Trust::Quoted, Some("user_runtime")));
    let environment =
        inputs.environment.iter().map(|(name, value)| (name.clone(), Shown::from(value.as_str())));
    let reserved = [
        ("parent_config", sanitise::value(inputs.parent_config, Trust::Raw)),
        ("user_runtime", runtime),
        ("mapped_identity", sanitise::account(inputs.mapped_identity)),
        ("env", Shown::from_object(Members::from_values(environment, Trust::Raw, None))),
    ];
    let reserved = reserved.map(|(name, value)| (name.to_owned(), value));
    let namespace = Shown::from_object(Members::from_values(reserved.clone(), Trust::Raw, None));
    // `self` is the template's own name for its blocks.
    let options = inputs.user_options.iter().filter(|(name, _)| *name != "self");
    let options = options.map(|(name, value)| (name.clone(), sanitise::value(value, Trust::Quoted)));
    let reserved = reserved.into_iter().filter(|(name, _)| name != "env");
    let variables: BTreeMap<_, _> = options.chain(reserved).chain([("_GC".to_owned(), namespace)]).collect();
    Shown::from_pairs(variables)
}

/// The rendered text, up to its limit.
struct Bounded {
    text: Vec<u8>,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.text.len() + bytes.len() > limits::OUTPUT {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
