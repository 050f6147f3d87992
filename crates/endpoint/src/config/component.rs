//! Reads one component of a configuration: an engine, a provider or a launcher, with its parameters as the catalogue describes
//! them.

use serde_json::{Map, Value as Json};

use super::catalogue::{self, ADDRESSES, Class, ENGINES, Fallback, Kind, Parameter};
use super::nearest::nearest;
use super::parameter_value::{self, ParameterValue};
use super::scalar::count;
use super::validation_error::ValidationError;
use super::yaml::{Entry, Node, Value};

/// A mapping with a `type`: the engine, its provider, or the provider's launcher.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Component {
    pub(super) class: &'static Class,
    /// The parameters that are set, converted as the catalogue says. It has no defaults.
    pub(super) given: Map<String, Json>,
}

impl Component {
    /// A component of which no parameter is set.
    pub(super) fn without_parameters(classes: &'static [Class], name: &'static str) -> Component {
        let class = catalogue::find(classes, name).expect("the catalogue holds the names it uses");
        Component { class, given: Map::new() }
    }

    /// The type and every parameter, given or default.
    pub(super) fn resolved(&self) -> Map<String, Json> {
        let mut all = Map::from_iter([("type".to_owned(), self.class.name.into())]);
        all.extend(self.class.defaults());
        all.extend(self.given.clone());
        all
    }

    /// The type and the parameters that are set.
    pub(super) fn given_with_type(&self) -> Map<String, Json> {
        let mut all = self.given.clone();
        all.insert("type".to_owned(), self.class.name.into());
        all
    }
}

/// Reads a mapping with a `type`; `usual` is the class if it has none.
pub(super) fn read(
    node: &Node,
    path: &[&str],
    classes: &'static [Class],
    usual: &str,
    errors: &mut Vec<ValidationError>,
) -> Option<Component> {
    let shown = path.join(" -> ");
    let Value::Map(entries) = &node.value else {
        errors.push(ValidationError::new(
            shown,
            "value is not a valid dict (type=type_error.dict)",
            Some(node.at),
        ));
        return None;
    };
    let class = match find(node, "type") {
        Some(Entry { node: Node { value: Value::Text(name), at }, .. }) => {
            match catalogue::find(classes, name) {
                Some(class) => class,
                None => {
                    let mut what = format!("{name} could not be found (type=value_error)");
                    let mut near = nearest(name, classes.iter().map(|class| class.name));
                    if name == catalogue::FORMER {
                        what = format!(
                            "{name} is now called {}; its options keep their names (type=value_error)",
                            catalogue::COMPUTE
                        );
                        near = None;
                    }
                    errors.push(ValidationError::new(format!("{shown} -> type"), what, Some(*at)).near(near));
                    return None;
                }
            }
        }
        Some(entry) => {
            let what = "str type expected (type=type_error.str)";
            errors.push(ValidationError::new(format!("{shown} -> type"), what, Some(entry.at)));
            return None;
        }
        None => match catalogue::find(classes, usual) {
            Some(class) => class,
            None => {
                let what = "field required (type=value_error.missing)";
                errors.push(ValidationError::new(format!("{shown} -> type"), what, Some(node.at)));
                return None;
            }
        },
    };
    let mut given = Map::new();
    for entry in entries {
        // Null means not given: templates rely on it.
        if entry.node.value == Value::Null || is_component(class, &entry.key) {
            continue;
        }
        match parameter(class, &entry.key) {
            Ok(parameter) => match value(parameter, &entry.node) {
                Ok(ParameterValue::Value(value)) => {
                    given.insert(parameter.name.to_owned(), value);
                }
                Ok(ParameterValue::Nothing) => {}
                Ok(ParameterValue::IdleTime(seconds)) => set_idle_time(&mut given, seconds),
                Err(what) => errors.extend(refused(parameter, &shown, entry, what)),
            },
            Err(what) => {
                let known = class.all().map(|parameter| parameter.name).chain(component_keys(class));
                errors.push(
                    ValidationError::new(&shown, what, Some(entry.at)).near(nearest(&entry.key, known)),
                );
            }
        }
    }
    let missing: Vec<_> = class
        .all()
        .filter(|it| it.fallback == Fallback::Required && !given.contains_key(it.name))
        .map(|parameter| format!("'{}'", parameter.name))
        .collect();
    if let Some((last, others)) = missing.split_last() {
        let what = format!(
            "{} missing {} required positional argument{}: {}{last} (type=value_error)",
            class.call(),
            missing.len(),
            if others.is_empty() { "" } else { "s" },
            if others.is_empty() { String::new() } else { format!("{} and ", others.join(", ")) },
        );
        errors.push(ValidationError::new(&shown, what, Some(node.at)));
    }
    Some(Component { class, given })
}

/// The errors for a value that its parameter does not accept, in upstream's words.
fn refused(parameter: &Parameter, shown: &str, entry: &Entry, what: String) -> Vec<ValidationError> {
    let place = format!("{shown} -> {}", entry.key);
    let node = &entry.node;
    let one = |what: String| vec![ValidationError::new(&place, what, Some(node.at))];
    match (parameter.kind, &node.value) {
        // Upstream checks it in the engine, so the error has the engine's path.
        (Kind::Containers, _) => vec![ValidationError::new(shown, what, Some(node.at))],
        (Kind::Ports, Value::List(nodes)) if nodes.len() == 2 => {
            let numbers = nodes.iter().enumerate().filter(|(_, node)| count(&node.value).is_none());
            let errors: Vec<_> = numbers
                .map(|(index, node)| {
                    let what = "value is not a valid integer (type=type_error.integer)";
                    ValidationError::new(format!("{place} -> {index}"), what, Some(node.at))
                })
                .collect();
            if errors.is_empty() { one(what) } else { errors }
        }
        (Kind::Ports, Value::List(nodes)) => {
            let length = nodes.len();
            one(format!(
                "wrong tuple length {length}, expected 2 (type=value_error.tuple.length; actual_length={length}; \
                 expected_length=2)"
            ))
        }
        (Kind::Ports, _) => one("value is not a valid tuple (type=type_error.tuple)".to_owned()),
        // It may be a text or a mapping: upstream reports both errors.
        (Kind::Address, _) => {
            let mut errors = Vec::new();
            read(node, &["engine", "address"], &ADDRESSES, "", &mut errors);
            // A mapping with a known type that lacks a parameter is not reported as no text.
            if errors.first().is_none_or(|first| first.path != place || !matches!(node.value, Value::Map(_)))
            {
                errors.insert(
                    0,
                    ValidationError::new(&place, "str type expected (type=type_error.str)", Some(node.at)),
                );
            }
            errors
        }
        _ => one(what),
    }
}

/// The keys of a class that hold further components.
fn component_keys(class: &Class) -> impl Iterator<Item = &'static str> {
    let own = [("type", true), ("provider", class.provider), ("launcher", class.launcher)];
    own.into_iter().filter(|(_, has)| *has).map(|(name, _)| name)
}

/// Whether this key holds a component, or would if it belonged here.
fn is_component(class: &Class, key: &str) -> bool {
    // A provider where none belongs gets an error of its own.
    key == "provider" && catalogue::find(&ENGINES, class.name).is_some()
        || component_keys(class).any(|part| part == key)
}

/// The parameter of this name, also of a few that upstream accepts in another place. The error is upstream's text.
fn parameter(class: &'static Class, key: &str) -> Result<&'static Parameter, String> {
    if let Some(parameter) = class.parameter(key) {
        return Ok(parameter);
    }
    if class.name == catalogue::COMPUTE && ["enable_mpi_mode", "mpi_launcher"].contains(&key) {
        return Err(
            "MPI mode is not supported on GlobusComputeEngine. Use GlobusMPIEngine instead. (type=value_error)".to_owned()
        );
    }
    let blocks = &["max_workers_per_block", "max_workers_per_node"];
    if class.name == catalogue::MPI && blocks.contains(&key) {
        return class.parameter("max_workers_per_block").ok_or_else(String::new);
    }
    if class.launcher && key == "max_workers_per_block" {
        return catalogue::find(&ENGINES, catalogue::MPI)
            .and_then(|engine| engine.parameter(key))
            .ok_or_else(String::new);
    }
    Err(format!("{} got an unexpected keyword argument '{key}' (type=value_error)", class.call()))
}

/// Sets `job_status_kwargs: {max_idletime: …}`, unless it is set.
fn set_idle_time(given: &mut Map<String, Json>, seconds: Json) {
    let kwargs = given.entry("job_status_kwargs").or_insert_with(|| Map::new().into());
    if let Some(kwargs) = kwargs.as_object_mut() {
        kwargs.entry("max_idletime").or_insert(seconds);
    }
}

/// Converts a value as its parameter requires.
fn value(parameter: &Parameter, node: &Node) -> Result<ParameterValue, String> {
    match (parameter.kind, &node.value) {
        (Kind::Address, Value::Map(_)) => address(node),
        _ => parameter_value::read(parameter, node),
    }
}

/// Converts an `address` that is a mapping: a component too.
fn address(node: &Node) -> Result<ParameterValue, String> {
    let mut errors = Vec::new();
    let part = read(node, &["engine", "address"], &ADDRESSES, "", &mut errors);
    match (part, errors.into_iter().next()) {
        (Some(part), None) => Ok(ParameterValue::Value(part.resolved().into())),
        (_, Some(error)) => Err(error.what),
        (None, None) => Err("str type expected (type=type_error.str)".to_owned()),
    }
}

/// The entry of a mapping. Null counts as absent.
pub(super) fn find<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key && entry.node.value != Value::Null)
}
