//! Reads `strategy` and `job_status_kwargs`, which say how the number of blocks follows the tasks, in the forms of
//! every release.

use std::time::Duration;

use serde_json::{Map, Value};

use super::error::InvalidOptions;
use crate::core::ScalingStrategy;

/// What the options say about scaling, with defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScalingOptions {
    pub(crate) strategy: ScalingStrategy,
    pub(crate) max_idle: Duration,
    /// Upstream's polling period. Nothing polls here: it is kept only to tell the user that it has no effect.
    pub(crate) period: Option<Duration>,
}

impl Default for ScalingOptions {
    fn default() -> Self {
        Self { strategy: ScalingStrategy::Simple, max_idle: Duration::from_secs(120), period: None }
    }
}

/// Reads both options; `kwargs` overrides `strategy`, as with upstream.
pub(super) fn read(
    strategy: Option<&Value>,
    kwargs: &Map<String, Value>,
) -> Result<ScalingOptions, InvalidOptions> {
    let mut scaling = ScalingOptions::default();
    if let Some(value) = strategy {
        apply(&mut scaling, value)?;
    }
    for (key, value) in kwargs {
        match key.as_str() {
            "strategy" => apply(&mut scaling, value)?,
            "max_idletime" => scaling.max_idle = parse_seconds("job_status_kwargs.max_idletime", value)?,
            "strategy_period" => {
                scaling.period = Some(parse_seconds("job_status_kwargs.strategy_period", value)?);
            }
            other => {
                return Err(InvalidOptions::Shape(format!(
                    "job_status_kwargs has no `{other}`; there are max_idletime, strategy and strategy_period"
                )));
            }
        }
    }
    Ok(scaling)
}

/// A name, or the object of older examples: `{type: SimpleStrategy, max_idletime: 90}`.
fn apply(scaling: &mut ScalingOptions, value: &Value) -> Result<(), InvalidOptions> {
    match value {
        Value::Null => {}
        Value::String(name) => scaling.strategy = parse_name(name)?,
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("type", Value::String(name)) => scaling.strategy = parse_name(name)?,
                    ("max_idletime", value) => {
                        scaling.max_idle = parse_seconds("strategy.max_idletime", value)?
                    }
                    _ => {
                        return Err(InvalidOptions::Shape(format!(
                            "strategy has no `{key}`; there are type and max_idletime"
                        )));
                    }
                }
            }
        }
        other => {
            return Err(InvalidOptions::Shape(format!("strategy `{other}` is not the name of a strategy")));
        }
    }
    Ok(())
}

fn parse_name(name: &str) -> Result<ScalingStrategy, InvalidOptions> {
    match name {
        "simple" | "SimpleStrategy" => Ok(ScalingStrategy::Simple),
        "htex_auto_scale" => Ok(ScalingStrategy::HtexAutoScale),
        "none" | "None" => Ok(ScalingStrategy::None),
        other => Err(InvalidOptions::Shape(format!(
            "strategy `{other}` is none of: simple, htex_auto_scale, none"
        ))),
    }
}

fn parse_seconds(option: &'static str, value: &Value) -> Result<Duration, InvalidOptions> {
    value
        .as_f64()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or(InvalidOptions::Range { option, must: "a number of seconds, zero or more" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reading(strategy: Value, kwargs: Value) -> Result<(ScalingStrategy, u64), String> {
        let strategy = Some(strategy).filter(|value| !value.is_null());
        read(strategy.as_ref(), kwargs.as_object().unwrap())
            .map(|scaling| (scaling.strategy, scaling.max_idle.as_secs()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_that_releases_have_had_is_read() {
        for (strategy, kwargs, expected) in [
            (json!(null), json!({}), (ScalingStrategy::Simple, 120)),
            (json!("simple"), json!({"max_idletime": 60.0}), (ScalingStrategy::Simple, 60)),
            (json!("htex_auto_scale"), json!({}), (ScalingStrategy::HtexAutoScale, 120)),
            (json!("none"), json!({"strategy_period": 120.0}), (ScalingStrategy::None, 120)),
            (json!({"type": "SimpleStrategy", "max_idletime": 90}), json!({}), (ScalingStrategy::Simple, 90)),
            (json!("simple"), json!({"strategy": "none"}), (ScalingStrategy::None, 120)),
            (json!("simple"), json!({"strategy": null}), (ScalingStrategy::Simple, 120)),
        ] {
            assert_eq!(reading(strategy.clone(), kwargs.clone()), Ok(expected), "{strategy} {kwargs}");
        }
    }

    #[test]
    fn unknown_strategies_are_refused_by_name() {
        for (strategy, kwargs, words) in [
            (json!("fast"), json!({}), "strategy `fast` is none of: simple, htex_auto_scale, none"),
            (json!(3), json!({}), "strategy `3` is not the name of a strategy"),
            (json!({"type": "simple", "period": 1}), json!({}), "strategy has no `period`"),
            (json!(null), json!({"idle": 1}), "job_status_kwargs has no `idle`"),
            (json!(null), json!({"max_idletime": -1}), "job_status_kwargs.max_idletime must be a number"),
        ] {
            let refused = reading(strategy, kwargs).unwrap_err();
            assert!(refused.starts_with(words), "{refused}");
        }
    }
}
