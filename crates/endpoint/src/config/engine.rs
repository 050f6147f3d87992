//! The block under `engine:`: which engine, provider and launcher, then the engine's own options.

use engine::{BlockOptions, InvalidOptions, ProviderOptions};

use super::fields::Wrong;
use super::yaml::{Entry, Node, Place, Value};

/// The engine's options, as the engine reads them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options(pub(crate) engine::Options);

impl Options {
    /// The parameters of blocks, whichever provider gives them.
    pub(crate) fn block(&self) -> &BlockOptions {
        match &self.0.provider {
            ProviderOptions::LocalProvider(block) => block,
        }
    }
}

const ENGINE: &str = "GlobusComputeEngine";
const LATER_ENGINES: [&str; 3] = ["GlobusMPIEngine", "ThreadPoolEngine", "ProcessPoolEngine"];
const PROVIDER: &str = "LocalProvider";
const LATER_PROVIDERS: [&str; 10] = [
    "SlurmProvider",
    "PBSProProvider",
    "TorqueProvider",
    "LSFProvider",
    "GridEngineProvider",
    "CondorProvider",
    "KubernetesProvider",
    "AWSProvider",
    "AzureProvider",
    "GoogleCloudProvider",
];
const LAUNCHERS: [&str; 3] = ["SingleNodeLauncher", "SimpleLauncher", "WrappedLauncher"];
const LATER_LAUNCHERS: [&str; 7] = [
    "SrunLauncher",
    "SrunMPILauncher",
    "AprunLauncher",
    "JsrunLauncher",
    "GnuParallelLauncher",
    "MpiExecLauncher",
    "MpiRunLauncher",
];

/// Reads the block.
pub(super) fn read(node: &Node) -> Result<Options, Vec<Wrong>> {
    let place = |path: &[&str]| find(node, path).map(|entry| entry.at);
    let mut wrong = Vec::new();
    let mut choose = |path: &[&str], known: &[&str], later: &[&str], meanwhile: &str| {
        let Some(entry) = find(node, path) else { return };
        let Value::Text(name) = &entry.node.value else { return };
        let shown = shown(path);
        if later.contains(&name.as_str()) {
            wrong.push(Wrong::later(&shown, name, meanwhile, entry.node.at));
        } else if !known.contains(&name.as_str()) {
            wrong.push(Wrong::new(
                shown,
                format!("{name} could not be found (type=value_error)"),
                Some(entry.node.at),
            ));
        }
    };
    choose(&["type"], &[ENGINE], &LATER_ENGINES, "use GlobusComputeEngine with a LocalProvider");
    choose(
        &["provider", "type"],
        &[PROVIDER],
        &LATER_PROVIDERS,
        "use LocalProvider, inside a batch job if need be",
    );
    let launcher = ["provider", "launcher", "type"];
    choose(&launcher, &LAUNCHERS, &LATER_LAUNCHERS, "use SingleNodeLauncher or SimpleLauncher");
    let mut options = node.to_json();
    let Some(map) = options.as_object_mut() else { return Err(wrong) };
    map.remove("type");
    // The text "None", which users write for nothing.
    if map.get("container_type").and_then(serde_json::Value::as_str) == Some("None") {
        map.remove("container_type");
    }
    if map.contains_key("container_type") {
        let at = place(&["container_type"]).unwrap_or_default();
        wrong.push(Wrong::later(
            "engine -> container_type",
            "container_type",
            "run workers without a container",
            at,
        ));
    }
    if let Some(provider) = map.get_mut("provider").and_then(serde_json::Value::as_object_mut) {
        provider.entry("type").or_insert_with(|| PROVIDER.into());
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    match engine::Options::from_value(options) {
        Ok(options) => Ok(Options(options)),
        Err(error) => Err(vec![refused(node, &error)]),
    }
}

/// What upstream says to an option nobody knows; our own words for the rest.
fn refused(node: &Node, error: &InvalidOptions) -> Wrong {
    let text = error.to_string();
    let unknown = text.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let Some(name) = unknown else {
        return Wrong::new("engine", format!("{text} (type=value_error)"), Some(node.at));
    };
    let (path, class): (&[&str], _) = if find(node, &[name]).is_some() {
        (&[], "HighThroughputExecutor")
    } else if find(node, &["provider", name]).is_some() {
        (&["provider"], PROVIDER)
    } else {
        (&["provider", "launcher"], "Launcher")
    };
    let at = find(node, &[path, &[name]].concat()).map(|entry| entry.at);
    let what = format!("{class}.__init__() got an unexpected keyword argument '{name}' (type=value_error)");
    Wrong::new(shown(path), what, at.or(Some(Place::default())))
}

fn shown(path: &[&str]) -> String {
    let mut shown = String::from("engine");
    for name in path {
        shown.push_str(" -> ");
        shown.push_str(name);
    }
    shown
}

/// The entry at the end of a path of keys.
fn find<'a>(node: &'a Node, path: &[&str]) -> Option<&'a Entry> {
    let (first, rest) = path.split_first()?;
    let Value::Map(entries) = &node.value else { return None };
    let entry = entries.iter().find(|entry| entry.key == *first)?;
    if rest.is_empty() { Some(entry) } else { find(&entry.node, rest) }
}
