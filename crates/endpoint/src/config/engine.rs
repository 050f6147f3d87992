//! Reads the block under `engine:`: the engine, its provider and its launcher.
//!
//! Accepts what upstream accepts, and more: walltimes without quotes, port ranges as lists, `strategy` as the object of older
//! examples, numbers in quotes (templates write them), `None` as text for nothing.

use serde_json::{Map, Value as Json, json};

use super::catalogue::{self, ENGINES, LAUNCHERS, PROVIDERS};
use super::component::{self, Component, find};
use super::validation_error::ValidationError;
use super::yaml::Node;

/// More than any node has.
const MOST_ACCELERATORS: u64 = 4096;

/// The block under `engine:`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Engine {
    own: Component,
    provider: Option<Component>,
    launcher: Option<Component>,
}

impl Engine {
    /// Every parameter with its value, given or default.
    pub(crate) fn resolved(&self) -> Map<String, Json> {
        let mut all = self.own.resolved();
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
                    usual = Component::without_parameters(&PROVIDERS, catalogue::LOCAL);
                    &usual
                }
            };
            let mut shown = provider.resolved();
            if provider.class.launcher {
                let launcher = match &self.launcher {
                    Some(launcher) => launcher.resolved(),
                    None => {
                        let name = catalogue::usual_launcher(provider.class.name);
                        Component::without_parameters(&LAUNCHERS, name).resolved()
                    }
                };
                shown.insert("launcher".to_owned(), launcher.into());
            }
            all.insert("provider".to_owned(), shown.into());
        }
        all
    }

    /// The options for the engine. The error names what this version can't run, and what to use meanwhile.
    pub(crate) fn runnable(&self) -> Result<engine::Options, String> {
        if let Some(provider) = self.provider.as_ref().filter(|it| it.class.name != catalogue::LOCAL) {
            return Err(format!(
                "{} is not part of this version yet; meanwhile use LocalProvider, inside a batch job if need be",
                provider.class.name
            ));
        }
        let mut options = self.own.given_with_type();
        // The older name of the same thing.
        if let Some(ports) = options.remove("worker_ports") {
            options.entry("worker_port_range").or_insert(ports);
        }
        let mut provider = match &self.provider {
            Some(provider) => provider.given_with_type(),
            None => Map::from_iter([("type".to_owned(), catalogue::LOCAL.into())]),
        };
        if let Some(launcher) = &self.launcher {
            provider.insert("launcher".to_owned(), launcher.given_with_type().into());
        }
        if self.own.class.provider {
            options.insert("provider".to_owned(), provider.into());
        }
        engine::Options::from_value(options.into()).map_err(|error| error.to_string())
    }
}

/// Reads the block.
pub(super) fn read(node: &Node) -> Result<Engine, Vec<ValidationError>> {
    let mut errors = Vec::new();
    let own = component::read(node, &["engine"], &ENGINES, catalogue::COMPUTE, &mut errors);
    let mut provider = None;
    let mut launcher = None;
    if let Some(entry) = find(node, "provider") {
        if own.as_ref().is_some_and(|own| !own.class.provider) {
            let name = own.as_ref().map_or("", |own| own.class.name);
            errors.push(ValidationError::new(
                "engine",
                format!("{name} takes no provider (type=value_error)"),
                Some(entry.at),
            ));
        } else {
            let path = ["engine", "provider"];
            provider = component::read(&entry.node, &path, &PROVIDERS, "", &mut errors);
            if let Some(entry) = find(&entry.node, "launcher") {
                let path = ["engine", "provider", "launcher"];
                launcher = component::read(&entry.node, &path, &LAUNCHERS, "", &mut errors);
            }
        }
    }
    let Some(mut own) = own else { return Err(errors) };
    if let Some(provider) = &mut provider {
        move_to_engine(&mut own, provider);
    }
    check(node, &own, provider.as_ref(), &mut errors);
    if errors.is_empty() { Ok(Engine { own, provider, launcher }) } else { Err(errors) }
}

/// Moves `max_workers_per_block` to the engine: upstream's tutorial puts it under the provider.
fn move_to_engine(own: &mut Component, provider: &mut Component) {
    if own.class.name == catalogue::MPI
        && let Some(count) = provider.given.remove("max_workers_per_block")
    {
        own.given.entry("max_workers_per_block").or_insert(count);
    }
}

/// Checks what the catalogue can't express.
fn check(node: &Node, own: &Component, provider: Option<&Component>, errors: &mut Vec<ValidationError>) {
    let at = |name: &str| find(node, name).map(|entry| entry.at);
    if let Some(Json::Array(list)) = own.given.get("allowed_serializers") {
        let list: Vec<String> = list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        if let Err(error) = engine::check_allowlist(&list) {
            errors.push(ValidationError::new(
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
        errors.push(ValidationError::new("engine -> __root__", what, at("container_uri")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Map<String, Json> {
        let node = super::super::yaml::read(text).unwrap();
        read(&node).unwrap_or_else(|errors| panic!("{text}: {errors:?}")).resolved()
    }

    fn refused(text: &str) -> String {
        let node = super::super::yaml::read(text).unwrap();
        read(&node).unwrap_err().remove(0).what
    }

    #[test]
    fn more_lenient_readings_than_upstream() {
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
    fn values_that_no_engine_accepts() {
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

    /// The catalogue shows defaults to users, and the engine has them by itself: they must be the same.
    #[test]
    fn the_defaults_that_are_shown_are_those_of_the_engine() {
        let set = |defaults: Map<String, Json>, name: &str| -> Json {
            let defaults = defaults.into_iter().filter(|(_, value)| !value.is_null());
            defaults.chain([("type".to_owned(), name.into())]).collect::<Map<_, _>>().into()
        };
        let options = |value: Json| engine::Options::from_value(value).unwrap();
        let local = catalogue::find(&PROVIDERS, catalogue::LOCAL).unwrap();
        for class in ENGINES.iter().filter(|class| class.name != catalogue::MPI) {
            let shown = options(set(class.defaults(), class.name));
            assert_eq!(shown, options(json!({"type": class.name})), "{}", class.name);
        }
        let within = |provider: Json| options(json!({"provider": provider}));
        let shown = within(set(local.defaults(), local.name));
        assert_eq!(shown, within(json!({"type": local.name})));
        for class in &LAUNCHERS {
            let required =
                class.all().filter(|parameter| parameter.fallback == catalogue::Fallback::Required);
            let required: Map<_, _> =
                required.map(|parameter| (parameter.name.to_owned(), "x".into())).collect();
            let mut shown = class.defaults();
            shown.extend(required.clone());
            let launched = |launcher: Json| within(json!({"type": local.name, "launcher": launcher}));
            assert_eq!(
                launched(set(shown, class.name)),
                launched(set(required, class.name)),
                "{}",
                class.name
            );
        }
    }

    #[test]
    fn supported_configurations_become_engine_options() {
        let read = |text: &str| super::read(&super::super::yaml::read(text).unwrap()).unwrap();
        let options = read(
            "max_workers_per_node: 2\nworker_ports: [5, 9]\nprovider: {type: LocalProvider, max_blocks: 3}\n",
        );
        let options = options.runnable().unwrap();
        assert_eq!((options.max_workers_per_node, options.worker_port_range), (Some(2), (5, 9)));
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
