//! The configurations of seventeen sites (`tests/sites`), read to the values that are listed there.

use std::path::Path;

use serde_json::Value;

use super::Config;

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sites")
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(directory().join("expected.json")).unwrap()).unwrap()
}

/// A site's configuration, its blanks filled in.
fn filled(name: &str, substitutions: &Value) -> String {
    let mut text = std::fs::read_to_string(directory().join(format!("{name}.yaml"))).unwrap();
    for (word, value) in substitutions.as_object().unwrap() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text = text.replace(&format!("{{{{ {word} }}}}"), &value);
    }
    text
}

/// Numbers are the same whether they are whole or not.
fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            other.iter().all(|(name, value)| one.get(name).is_some_and(|found| same(found, value)))
        }
        _ => found == expected,
    }
}

#[test]
fn seventeen_sites_are_read_to_the_listed_values() {
    let expected = expected();
    let sites = expected["configs"].as_object().unwrap();
    assert_eq!(sites.len(), 17);
    let mut wrong = Vec::new();
    for (name, site) in sites {
        let text = filled(name, &expected["substitutions"]);
        let config = Config::read(name, &text).unwrap_or_else(|bad| panic!("{name}: {bad}\n{text}"));
        let resolved = config.resolved();
        let (engine, kwargs) = (&resolved["engine"], &resolved["engine"]["job_status_kwargs"]);
        let mut compare = |what: &str, found: &Value, expected: &Value| {
            if !same(found, expected) {
                wrong.push(format!("{name}: {what} is {found}, and {expected} is listed"));
            }
        };
        for (key, value) in site["top"].as_object().unwrap() {
            compare(key, &resolved[key], value);
        }
        for (key, value) in site["engine"].as_object().unwrap() {
            match key.as_str() {
                // What the engine makes of them, and not what is configured.
                "workers_per_node" | "executor_label" => {}
                // What upstream's MPI engine calls otherwise.
                "max_workers_per_node" if engine["type"] == "GlobusMPIEngine" => {
                    compare(key, &engine["max_workers_per_block"], value);
                }
                "strategy" | "max_idletime" | "strategy_period" => compare(key, &kwargs[key], value),
                _ => compare(key, &engine[key], value),
            }
        }
        for (key, value) in site["provider"].as_object().unwrap() {
            compare(&format!("provider.{key}"), &engine["provider"][key], value);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What this version can't run is read all the same, and refused by name when it is started.
#[test]
fn an_unsupported_site_gets_an_alternative() {
    let expected = expected();
    for name in expected["configs"].as_object().unwrap().keys() {
        let config = Config::read(name, &filled(name, &expected["substitutions"])).unwrap();
        match config.engine.runnable() {
            Ok(_) => assert_eq!(name, "worker_pinning"),
            Err(why) => assert!(why.contains("meanwhile"), "{name}: {why}"),
        }
    }
}
