use serde_json::json;

use super::*;
use crate::launcher::Launcher;

fn read(class: &str, map: Value) -> Result<BatchOptions, String> {
    let map = map.as_object().unwrap().clone();
    BatchOptions::read(class, map).unwrap().map_err(|error| error.to_string())
}

const CLASSES: [&str; 6] = [
    "SlurmProvider",
    "PBSProProvider",
    "TorqueProvider",
    "LSFProvider",
    "GridEngineProvider",
    "CondorProvider",
];

#[test]
fn defaults_are_those_of_the_contract() {
    for (class, seconds, walltime) in [
        ("SlurmProvider", 10, Some("00:10:00")),
        ("PBSProProvider", 120, Some("00:20:00")),
        ("TorqueProvider", 120, Some("00:20:00")),
        ("LSFProvider", 120, Some("00:10:00")),
        ("GridEngineProvider", 60, Some("00:10:00")),
        ("CondorProvider", 60, None),
    ] {
        let options = read(class, json!({})).unwrap();
        assert_eq!(options.command_limit.as_secs(), seconds, "{class}");
        let (blocks, usual) = (&options.blocks, BlockOptions::default());
        assert_eq!((blocks.init_blocks, blocks.min_blocks, blocks.max_blocks), (1, 0, 1), "{class}");
        let launcher = match class {
            "TorqueProvider" => Launcher::AprunLauncher { debug: true, overrides: String::new() },
            _ => usual.launcher,
        };
        assert_eq!((blocks.nodes_per_block, &blocks.launcher), (1, &launcher), "{class}");
        let found = match &options.scheduler {
            SchedulerOptions::Slurm(slurm) => {
                assert!(slurm.exclusive && slurm.before_job_id == "Submitted batch job ");
                Some(&slurm.walltime)
            }
            SchedulerOptions::PbsPro(pbs) => {
                assert_eq!(pbs.cpus_per_node, 1);
                Some(&pbs.walltime)
            }
            SchedulerOptions::Torque(torque) => Some(&torque.walltime),
            SchedulerOptions::Lsf(lsf) => {
                assert_eq!((lsf.request, lsf.bsub_redirection), (LsfRequest::Nodes, false));
                Some(&lsf.walltime)
            }
            SchedulerOptions::GridEngine(engine) => Some(&engine.walltime),
            SchedulerOptions::Condor(_) => None,
        };
        assert_eq!(found.map(walltime::Walltime::hours), walltime, "{class}");
    }
    assert!(BatchOptions::read("LocalProvider", Map::new()).is_none());
}

#[test]
fn unknown_options_and_wrong_types_are_named() {
    for class in CLASSES {
        let refused = read(class, json!({"partitions": "debug"})).unwrap_err();
        assert!(refused.starts_with(&format!("{class}: partitions is not an option")), "{refused}");
        let refused = read(class, json!({"cmd_timeout": "soon"})).unwrap_err();
        assert_eq!(
            refused,
            format!("{class}: cmd_timeout must be a whole number of at least 1, and is \"soon\"")
        );
        let refused = read(class, json!({"walltime": [1, 0]})).unwrap_err();
        assert!(refused.contains("walltime must be HH:MM:SS"), "{refused}");
        let refused = read(class, json!({"scheduler_options": ["a"]})).unwrap_err();
        assert!(refused.contains("scheduler_options must be text, and is [\"a\"]"), "{refused}");
        let refused = read(class, json!({"nodes_per_block": "many"})).unwrap_err();
        assert!(refused.starts_with(class), "{refused}");
        let refused = read(class, json!({"min_blocks": 2})).unwrap_err();
        assert_eq!(refused, "max_blocks must be at least min_blocks");
    }
    for (option, value, words) in [
        ("partition", json!("debug\n#SBATCH --array=1-9"), "partition must be one line"),
        ("constraint", json!("\"a&b"), "constraint has a quote that is not closed"),
        ("account", json!("--wait"), "account must not begin with a dash"),
        ("mem_per_node", json!(1.5), "mem_per_node must be a whole number"),
        ("gpus_per_node", json!(0), "gpus_per_node must be a whole number of at least 1"),
        ("exclusive", json!("perhaps"), "exclusive must be true or false"),
        ("scheduler_options", json!("#SBATCH \u{1b}x"), "control character"),
        ("regex_job_id", json!("(a|b) (?P<id>.*)"), "regex_job_id must be text and then"),
        ("cmd_timeout", json!(86_400), "cmd_timeout must be at most 3600 seconds"),
    ] {
        let refused = read("SlurmProvider", json!({option: value})).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn what_templates_and_other_systems_write_is_read() {
    let options = read(
        "SlurmProvider",
        json!({
            "partition": " gpu\n",
            "account": 1234,
            "qos": null,
            "gres": "",
            "mem_per_node": "16",
            "exclusive": "False",
            "clusters": "a, b",
            "constraint": "\"A100 | V100\"",
            "scheduler_options": "#SBATCH --gpus=1\r\n#SBATCH -C \"x y\"\r\n",
            "regex_job_id": r"^Submitted batch job (?P<id>\d+)",
            "max_blocks": 4,
            "launcher": {"type": "SrunLauncher"},
        }),
    )
    .unwrap();
    let SchedulerOptions::Slurm(slurm) = &options.scheduler else { panic!() };
    assert_eq!((slurm.partition.as_deref(), slurm.account.as_deref()), (Some("gpu"), Some("1234")));
    assert_eq!((slurm.qos.as_deref(), slurm.gres.as_deref()), (None, None));
    assert_eq!((slurm.mem_per_node, slurm.exclusive), (Some(16), false));
    assert_eq!(slurm.clusters.as_deref(), Some("a,b"));
    assert_eq!(slurm.scheduler_options, "#SBATCH --gpus=1\n#SBATCH -C \"x y\"\n");
    assert_eq!(slurm.before_job_id, "Submitted batch job ");
    assert_eq!((options.node_size(), options.blocks.max_blocks), ((Some("16".into()), None), 4));
}

#[test]
fn options_without_effect_are_named() {
    let names = |class, map| -> Vec<_> {
        read(class, map).unwrap().without_effect.into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names("SlurmProvider", json!({"status_batch_size": 10})), ["status_batch_size"]);
    let given = json!({"cmd_chunk_size": 5, "walltime": "01:00:00"});
    assert_eq!(names("CondorProvider", given), ["walltime", "cmd_chunk_size"]);
    assert!(names("SlurmProvider", json!({"walltime": "01:00:00"})).is_empty());
}

#[test]
fn lsf_counts_nodes_from_cores() {
    let by_cores = json!({"request_by_nodes": false, "cores_per_block": 40, "cores_per_node": 16});
    assert_eq!(read("LSFProvider", by_cores).unwrap().blocks.nodes_per_block, 3);
    let missing = read("LSFProvider", json!({"request_by_nodes": false})).unwrap_err();
    assert!(missing.contains("cores_per_block and cores_per_node must be given"));
}

#[test]
fn htcondor_is_given_nothing_that_it_would_split() {
    for (option, value, words) in [
        ("transfer_input_files", json!(["a,b"]), "separates paths by commas"),
        ("environment", json!({"A B": "c"}), "names are letters"),
        ("environment", json!({"A": "c\nd"}), "values one line"),
        ("environment", json!("A=b"), "must be a mapping of texts"),
        ("scheduler_options", json!("+x = 1\nqueue 3"), "queue is refused"),
    ] {
        let refused = read("CondorProvider", json!({option: value})).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
    let options = read("CondorProvider", json!({"mem_per_slot": 2.5, "cores_per_slot": 4})).unwrap();
    assert_eq!(options.node_size(), (Some("2.5".into()), Some(4)));
}

/// The providers of the site configurations, as the endpoint reads them (`tests/sites`).
#[test]
fn the_providers_of_the_site_configurations_are_read() {
    let sites: Value =
        serde_json::from_str(include_str!("../../../../../tests/sites/expected.json")).unwrap();
    let mut read = 0;
    for (site, expected) in sites["configs"].as_object().unwrap() {
        let Some(provider) = expected["read"]["provider"].as_object() else { continue };
        let mut provider = provider.clone();
        let class = provider.remove("type").unwrap();
        let Some(options) = BatchOptions::read(class.as_str().unwrap(), provider) else { continue };
        let options = options.unwrap_or_else(|error| panic!("{site}: {error}"));
        assert!(!options.scheduler_name().is_empty());
        read += 1;
    }
    assert_eq!(read, 15);
}
