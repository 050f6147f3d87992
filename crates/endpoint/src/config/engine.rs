//! The block under `engine:`: which engine, provider and launcher, and their parameters, read by the catalogue.
//!
//! Upstream's readings hold, and a few friendlier ones: walltimes without quotes, port ranges as lists, `strategy` as
//! the object of older examples, numbers in quotes (templates write them), `None` as text for nothing.

use serde_json::{Map, Value as Json, json};

use super::catalogue::{self, ADDRESSES, Class, ENGINES, Fallback, Kind, LAUNCHERS, PROVIDERS, Parameter};
use super::fields::Wrong;
use super::nearest::nearest;
use super::yaml::{Entry, Node, Value};

/// No node has more.
const MOST_ACCELERATORS: u64 = 4096;

/// A part with a type: the engine, its provider, the provider's launcher.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    class: &'static Class,
    /// What was given, in the form the catalogue says; defaults are not here.
    given: Map<String, Json>,
}

/// What stands under `engine:`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Engine {
    own: Part,
    provider: Option<Part>,
    launcher: Option<Part>,
}

impl Engine {
    /// Every parameter with its value, given or default.
    pub(crate) fn resolved(&self) -> Map<String, Json> {
        let mut all = resolved(&self.own);
        if all.get("label").is_some_and(Json::is_null) {
            all.insert("label".to_owned(), self.own.class.name.into());
        }
        if let Some(count) = all.get("available_accelerators").and_then(Json::as_u64) {
            let names = (0..count.min(MOST_ACCELERATORS)).map(|index| Json::from(index.to_string()));
            all.insert("available_accelerators".to_owned(), names.collect());
        }
        if let Some(Json::Object(given)) = all.remove("job_status_kwargs") {
            let mut whole = Map::from_iter([
                ("max_idletime".to_owned(), json!(120.0)),
                (
                    "strategy".to_owned(),
                    all.get("strategy").filter(|it| !it.is_null()).cloned().unwrap_or("simple".into()),
                ),
                ("strategy_period".to_owned(), json!(5.0)),
            ]);
            whole.extend(given);
            all.insert("job_status_kwargs".to_owned(), whole.into());
        }
        if self.own.class.provider {
            let usual;
            let provider = match &self.provider {
                Some(provider) => provider,
                None => {
                    usual = part(&PROVIDERS, catalogue::LOCAL);
                    &usual
                }
            };
            let mut shown = resolved(provider);
            if provider.class.launcher {
                let launcher = match &self.launcher {
                    Some(launcher) => resolved(launcher),
                    None => resolved(&part(&LAUNCHERS, catalogue::usual_launcher(provider.class.name))),
                };
                shown.insert("launcher".to_owned(), launcher.into());
            }
            all.insert("provider".to_owned(), shown.into());
        }
        all
    }

    /// The parts of this configuration by name that this version can't run, each with what to use meanwhile; else the
    /// options for the engine.
    pub(crate) fn runnable(&self) -> Result<engine::Options, String> {
        if let Some(provider) = self.provider.as_ref().filter(|it| it.class.name != catalogue::LOCAL) {
            return Err(format!(
                "{} is not part of this version yet; meanwhile use LocalProvider, inside a batch job if need be",
                provider.class.name
            ));
        }
        let mut options = typed(&self.own);
        // The older name of the same thing.
        if let Some(ports) = options.remove("worker_ports") {
            options.entry("worker_port_range").or_insert(ports);
        }
        let mut provider = match &self.provider {
            Some(provider) => typed(provider),
            None => Map::from_iter([("type".to_owned(), catalogue::LOCAL.into())]),
        };
        if let Some(launcher) = &self.launcher {
            provider.insert("launcher".to_owned(), typed(launcher).into());
        }
        if self.own.class.provider {
            options.insert("provider".to_owned(), provider.into());
        }
        engine::Options::from_value(options.into()).map_err(|error| error.to_string())
    }
}

fn part(classes: &'static [Class], name: &'static str) -> Part {
    let class = catalogue::find(classes, name).expect("the catalogue holds the names it uses");
    Part { class, given: Map::new() }
}

fn resolved(part: &Part) -> Map<String, Json> {
    let mut all = Map::from_iter([("type".to_owned(), part.class.name.into())]);
    all.extend(part.class.defaults());
    all.extend(part.given.clone());
    all
}

fn typed(part: &Part) -> Map<String, Json> {
    let mut all = part.given.clone();
    all.insert("type".to_owned(), part.class.name.into());
    all
}

/// Reads the block.
pub(super) fn read(node: &Node) -> Result<Engine, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let own = read_part(node, &["engine"], &ENGINES, catalogue::COMPUTE, &mut wrong);
    let mut provider = None;
    let mut launcher = None;
    if let Some(entry) = find(node, "provider") {
        if own.as_ref().is_some_and(|own| !own.class.provider) {
            let name = own.as_ref().map_or("", |own| own.class.name);
            wrong.push(Wrong::new(
                "engine",
                format!("{name} takes no provider (type=value_error)"),
                Some(entry.at),
            ));
        } else {
            let path = ["engine", "provider"];
            provider = read_part(&entry.node, &path, &PROVIDERS, "", &mut wrong);
            if let Some(entry) = find(&entry.node, "launcher") {
                let path = ["engine", "provider", "launcher"];
                launcher = read_part(&entry.node, &path, &LAUNCHERS, "", &mut wrong);
            }
        }
    }
    let Some(mut own) = own else { return Err(wrong) };
    if let Some(provider) = &mut provider {
        hoist(&mut own, provider);
    }
    check(node, &own, provider.as_ref(), &mut wrong);
    if wrong.is_empty() { Ok(Engine { own, provider, launcher }) } else { Err(wrong) }
}

/// Upstream's own tutorial puts this under the provider.
fn hoist(own: &mut Part, provider: &mut Part) {
    if own.class.name == catalogue::MPI
        && let Some(count) = provider.given.remove("max_workers_per_block")
    {
        own.given.entry("max_workers_per_block").or_insert(count);
    }
}

/// What no table can say.
fn check(node: &Node, own: &Part, provider: Option<&Part>, wrong: &mut Vec<Wrong>) {
    let at = |name: &str| find(node, name).map(|entry| entry.at);
    if let Some(Json::Array(list)) = own.given.get("allowed_serializers") {
        let list: Vec<String> = list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        if let Err(error) = engine::check_allowlist(&list) {
            wrong.push(Wrong::new(
                "engine",
                format!("{error} (type=value_error)"),
                at("allowed_serializers"),
            ));
        }
    }
    let managed = ["AWSProvider", "GoogleCloudProvider", "KubernetesProvider"];
    if own.given.contains_key("container_uri")
        && let Some(provider) = provider.filter(|provider| managed.contains(&provider.class.name))
    {
        let name = provider.class.name;
        let what = format!(
            "The 'container_uri' field is not compatible with {name} because this provider manages containers \
             internally. For more information on how to configure {name}, please refer to Parsl documentation: \
             https://parsl.readthedocs.io/en/stable/stubs/parsl.providers.{name}.html (type=value_error)"
        );
        wrong.push(Wrong::new("engine -> __root__", what, at("container_uri")));
    }
}

/// Reads a mapping with a `type`; `usual` is its class when it names none.
fn read_part(
    node: &Node,
    path: &[&str],
    classes: &'static [Class],
    usual: &str,
    wrong: &mut Vec<Wrong>,
) -> Option<Part> {
    let shown = path.join(" -> ");
    let Value::Map(entries) = &node.value else {
        wrong.push(Wrong::new(shown, "value is not a valid dict (type=type_error.dict)", Some(node.at)));
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
                    wrong.push(Wrong::new(format!("{shown} -> type"), what, Some(*at)).near(near));
                    return None;
                }
            }
        }
        Some(entry) => {
            let what = "str type expected (type=type_error.str)";
            wrong.push(Wrong::new(format!("{shown} -> type"), what, Some(entry.at)));
            return None;
        }
        None => match catalogue::find(classes, usual) {
            Some(class) => class,
            None => {
                let what = "field required (type=value_error.missing)";
                wrong.push(Wrong::new(format!("{shown} -> type"), what, Some(node.at)));
                return None;
            }
        },
    };
    let mut given = Map::new();
    for entry in entries {
        // Null means not given: templates rely on it.
        if entry.node.value == Value::Null || is_part(class, &entry.key) {
            continue;
        }
        match parameter(class, &entry.key) {
            Ok(parameter) => match value(parameter, &entry.node) {
                Ok(Read::Value(value)) => {
                    given.insert(parameter.name.to_owned(), value);
                }
                Ok(Read::Nothing) => {}
                Ok(Read::Idle(seconds)) => idle(&mut given, seconds),
                Err(what) => wrong.extend(refused(parameter, &shown, entry, what)),
            },
            Err(what) => {
                let known = class.all().map(|parameter| parameter.name).chain(parts(class));
                wrong.push(Wrong::new(&shown, what, Some(entry.at)).near(nearest(&entry.key, known)));
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
        wrong.push(Wrong::new(&shown, what, Some(node.at)));
    }
    Some(Part { class, given })
}

/// What upstream says of a value that its parameter does not take.
fn refused(parameter: &Parameter, shown: &str, entry: &Entry, what: String) -> Vec<Wrong> {
    let place = format!("{shown} -> {}", entry.key);
    let node = &entry.node;
    let one = |what: String| vec![Wrong::new(&place, what, Some(node.at))];
    match (parameter.kind, &node.value) {
        // Only the engine itself looks at it.
        (Kind::Containers, _) => vec![Wrong::new(shown, what, Some(node.at))],
        (Kind::Ports, Value::List(nodes)) if nodes.len() == 2 => {
            let numbers = nodes.iter().enumerate().filter(|(_, node)| count(&node.value).is_none());
            let wrong: Vec<_> = numbers
                .map(|(index, node)| {
                    let what = "value is not a valid integer (type=type_error.integer)";
                    Wrong::new(format!("{place} -> {index}"), what, Some(node.at))
                })
                .collect();
            if wrong.is_empty() { one(what) } else { wrong }
        }
        (Kind::Ports, Value::List(nodes)) => {
            let length = nodes.len();
            one(format!(
                "wrong tuple length {length}, expected 2 (type=value_error.tuple.length; actual_length={length}; \
                 expected_length=2)"
            ))
        }
        (Kind::Ports, _) => one("value is not a valid tuple (type=type_error.tuple)".to_owned()),
        // It may be either.
        (Kind::Address, _) => {
            let mut wrong = Vec::new();
            read_part(node, &["engine", "address"], &ADDRESSES, "", &mut wrong);
            // What is called by its right name and lacks something was no text.
            if wrong.first().is_none_or(|first| first.path != place || !matches!(node.value, Value::Map(_))) {
                wrong.insert(0, Wrong::new(&place, "str type expected (type=type_error.str)", Some(node.at)));
            }
            wrong
        }
        _ => one(what),
    }
}

/// The keys of a class that hold further parts.
fn parts(class: &Class) -> impl Iterator<Item = &'static str> {
    let own = [("type", true), ("provider", class.provider), ("launcher", class.launcher)];
    own.into_iter().filter(|(_, has)| *has).map(|(name, _)| name)
}

fn is_part(class: &Class, key: &str) -> bool {
    // A provider where none belongs is told by name elsewhere.
    key == "provider" && catalogue::find(&ENGINES, class.name).is_some()
        || parts(class).any(|part| part == key)
}

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

/// What a value was read as.
enum Read {
    Value(Json),
    /// As good as not given.
    Nothing,
    /// The idle time of a strategy's object form.
    Idle(Json),
}

fn idle(given: &mut Map<String, Json>, seconds: Json) {
    let kwargs = given.entry("job_status_kwargs").or_insert_with(|| Map::new().into());
    if let Some(kwargs) = kwargs.as_object_mut() {
        kwargs.entry("max_idletime").or_insert(seconds);
    }
}

/// Reads one value as its parameter wants it.
fn value(parameter: &Parameter, node: &Node) -> Result<Read, String> {
    let read = match (parameter.kind, &node.value) {
        (Kind::Text, value) => Json::from(text(value).ok_or("str type expected (type=type_error.str)")?),
        (Kind::Flag, value) => Json::from(
            super::fields::boolean(value)
                .ok_or("value could not be parsed to a boolean (type=type_error.bool)")?,
        ),
        (Kind::Count, value) => {
            Json::from(count(value).ok_or("value is not a valid integer (type=type_error.integer)")?)
        }
        (Kind::Number, value) => number(value).ok_or("value is not a valid float (type=type_error.float)")?,
        (Kind::Walltime, value) => Json::from(
            walltime(value)
                .ok_or("a time as HH:MM:SS expected, or a number of seconds (type=value_error)")?,
        ),
        (Kind::Texts, Value::List(nodes)) => {
            texts(nodes).ok_or("a list of texts expected (type=type_error.list)")?
        }
        (Kind::Accelerators, Value::List(nodes)) => {
            texts(nodes).ok_or("a list of names expected, or a count (type=type_error.list)")?
        }
        (Kind::Accelerators, value) => {
            Json::from(count(value).ok_or("a list of names expected, or a count (type=type_error.list)")?)
        }
        (Kind::Ports, Value::List(nodes)) => {
            ports(nodes).ok_or("two port numbers expected (type=value_error)")?
        }
        (Kind::Map, Value::Map(_)) | (Kind::Free, _) => node.to_json(),
        (Kind::Map, _) => return Err("value is not a valid dict (type=type_error.dict)".to_owned()),
        (Kind::Address, Value::Text(address)) => Json::from(address.as_str()),
        (Kind::Address, Value::Map(_)) => return address(node),
        (Kind::Strategy, Value::Text(name)) => match name.as_str() {
            "None" => return Ok(Read::Nothing),
            "simple" | "htex_auto_scale" | "none" => Json::from(name.as_str()),
            other => {
                return Err(format!(
                    "{other} is no strategy; there are simple, htex_auto_scale and none (type=value_error)"
                ));
            }
        },
        (Kind::Strategy, Value::Map(_)) => {
            return Ok(match node.to_json().get("max_idletime") {
                Some(seconds) => Read::Idle(seconds.clone()),
                None => Read::Nothing,
            });
        }
        (Kind::Strategy, _) => return Err("str type expected (type=type_error.str)".to_owned()),
        (Kind::Containers, Value::Text(name)) => match name.as_str() {
            "None" | "none" | "null" => return Ok(Read::Nothing),
            "docker" | "podman" | "podman-hpc" | "apptainer" | "singularity" | "custom" => {
                Json::from(name.as_str())
            }
            other => return Err(format!("{other} is not a valid container_type (type=value_error)")),
        },
        (Kind::Texts, _) => return Err("value is not a valid list (type=type_error.list)".to_owned()),
        (Kind::Ports, _) => return Err("two port numbers expected (type=value_error)".to_owned()),
        (Kind::Address | Kind::Containers, _) => {
            return Err("str type expected (type=type_error.str)".to_owned());
        }
    };
    Ok(Read::Value(read))
}

fn address(node: &Node) -> Result<Read, String> {
    let mut wrong = Vec::new();
    let part = read_part(node, &["engine", "address"], &ADDRESSES, "", &mut wrong);
    match (part, wrong.into_iter().next()) {
        (Some(part), None) => Ok(Read::Value(resolved(&part).into())),
        (_, Some(wrong)) => Err(wrong.what),
        (None, None) => Err("str type expected (type=type_error.str)".to_owned()),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn number(value: &Value) -> Option<Json> {
    match value {
        Value::Int(number) => Some((*number).into()),
        Value::Float(number) => Some((*number).into()),
        Value::Text(text) => text.trim().parse::<f64>().ok().map(Json::from),
        _ => None,
    }
}

/// Schedulers take more forms than this checks; a bare number is seconds, as YAML 1.1 reads a walltime without quotes.
fn walltime(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) if text.contains(':') || text.contains('-') => Some(text.clone()),
        other => {
            let seconds = count(other)?;
            Some(format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60))
        }
    }
}

fn texts(nodes: &[Node]) -> Option<Json> {
    nodes.iter().map(|node| text(&node.value).map(Json::from)).collect()
}

fn ports(nodes: &[Node]) -> Option<Json> {
    let [first, last] = nodes else { return None };
    let port = |node: &Node| count(&node.value).and_then(|number| u16::try_from(number).ok());
    let (first, last) = (port(first)?, port(last)?);
    (first < last).then(|| json!([first, last]))
}

fn find<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    let Value::Map(entries) = &node.value else { return None };
    // Null means not given.
    entries.iter().find(|entry| entry.key == key && entry.node.value != Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Map<String, Json> {
        let node = super::super::yaml::read(text).unwrap();
        read(&node).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}")).resolved()
    }

    fn refused(text: &str) -> String {
        let node = super::super::yaml::read(text).unwrap();
        read(&node).unwrap_err().remove(0).what
    }

    #[test]
    fn friendly_readings() {
        let slurm =
            |rest: &str| given(&format!("provider:\n  type: SlurmProvider\n{rest}"))["provider"].clone();
        for (written, read) in [
            ("10:00:00", "10:00:00"),
            ("1:00:00", "1:00:00"),
            ("3600", "01:00:00"),
            ("'00:30:00'", "00:30:00"),
            ("1-00:00:00", "1-00:00:00"),
        ] {
            assert_eq!(slurm(&format!("  walltime: {written}\n"))["walltime"], read, "{written}");
        }
        assert_eq!(slurm("  account: 1234\n  nodes_per_block: '2'\n")["account"], "1234");
        assert_eq!(slurm("  nodes_per_block: '2'\n")["nodes_per_block"], 2);
        let engine = given(
            "worker_port_range: [50000, 51000]\ninterchange_port_range: [1, 2]\ncontainer_type: None\n",
        );
        assert_eq!(engine["worker_port_range"], json!([50000, 51000]));
        assert_eq!(engine["container_type"], Json::Null);
        let engine = given("strategy: {type: SimpleStrategy, max_idletime: 90}\n");
        assert_eq!(engine["strategy"], Json::Null);
        assert_eq!(
            engine["job_status_kwargs"],
            json!({"max_idletime": 90, "strategy": "simple", "strategy_period": 5.0})
        );
        assert_eq!(given("available_accelerators: [0, 1]\n")["available_accelerators"], json!(["0", "1"]));
        assert_eq!(given("available_accelerators: 2\n")["available_accelerators"], json!(["0", "1"]));
        let mpi = "type: GlobusMPIEngine\nmax_workers_per_node: 2\n";
        assert_eq!(given(mpi)["max_workers_per_block"], 2);
        let mpi = "type: GlobusMPIEngine\nprovider:\n  type: SlurmProvider\n  max_workers_per_block: 3\n";
        assert_eq!(given(mpi)["max_workers_per_block"], 3);
        assert_eq!(given("type: ThreadPoolEngine\nmax_workers: 4\nworking_dir: x\n")["working_dir"], "x");
        assert_eq!(
            given("address: {type: address_by_interface, ifname: bond0}\n")["address"],
            json!({"type": "address_by_interface", "ifname": "bond0"})
        );
        assert_eq!(
            given("label: null\nprovider: {type: LocalProvider, launcher: null}\n")["label"],
            "GlobusComputeEngine"
        );
    }

    #[test]
    fn what_no_engine_could_work_with() {
        for (text, what) in [
            ("worker_port_range: [2, 1]\n", "two port numbers expected"),
            ("worker_port_range: [1]\n", "wrong tuple length 1, expected 2"),
            ("strategy: best\n", "best is no strategy"),
            ("container_type: lxc\n", "lxc is not a valid container_type"),
            ("enable_mpi_mode: true\n", "MPI mode is not supported on GlobusComputeEngine."),
            ("max_workers_per_node: -1\n", "value is not a valid integer"),
            (
                "provider: {type: KubernetesProvider}\n",
                "KubernetesProvider.__init__() missing 1 required positional argument: 'image'",
            ),
            ("provider: {max_blocks: 1}\n", "field required"),
            (
                "type: ThreadPoolEngine\nprovider: {type: LocalProvider}\n",
                "ThreadPoolEngine takes no provider",
            ),
            (
                "address: {type: address_by_interface}\n",
                "address_by_interface() missing 1 required positional argument: 'ifname'",
            ),
            (
                "container_uri: x\nprovider: {type: KubernetesProvider, image: x}\n",
                "The 'container_uri' field is not compatible with KubernetesProvider",
            ),
            (
                "allowed_serializers: [globus_compute_sdk.serialize.DillCodeSource]\n",
                "Deserialization allowlists must contain at least one code and one data deserializer/wildcard \
                 (got: ['globus_compute_sdk.serialize.DillCodeSource'])",
            ),
        ] {
            let found = refused(text);
            assert!(found.starts_with(what), "{text}: {found}");
        }
    }

    #[test]
    fn what_this_version_runs_becomes_options_of_the_engine() {
        let read = |text: &str| super::read(&super::super::yaml::read(text).unwrap()).unwrap();
        let options = read(
            "max_workers_per_node: 2\nworker_ports: [5, 9]\nprovider: {type: LocalProvider, max_blocks: 3}\n",
        );
        let options = options.runnable().unwrap();
        assert_eq!((options.max_workers_per_node, options.worker_port_range), (Some(2), Some((5, 9))));
        for (text, name) in [
            ("type: GlobusMPIEngine\n", "GlobusMPIEngine"),
            ("provider: {type: SlurmProvider}\n", "SlurmProvider"),
            ("container_type: docker\ncontainer_uri: x\n", "container_type"),
        ] {
            let refused = read(text).runnable().unwrap_err();
            assert!(refused.starts_with(name) && refused.contains("; meanwhile "), "{refused}");
        }
    }
}
