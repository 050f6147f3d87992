//! `provider:` under an engine: the options of every provider, and those of one kind.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::InvalidOptions;
use crate::launcher::Launcher;

/// `provider:` under an engine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct ProviderOptions {
    /// The options of every provider.
    pub blocks: BlockOptions,
    /// The options of this kind of provider.
    pub kind: ProviderKind,
}

/// The kinds of providers, each with the options that only it has.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type")]
pub enum ProviderKind {
    LocalProvider(LocalOptions),
}

impl Default for ProviderKind {
    fn default() -> Self {
        Self::LocalProvider(LocalOptions::default())
    }
}

/// The options that only a LocalProvider has.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalOptions {
    /// In seconds.
    pub cmd_timeout: u64,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { cmd_timeout: 30 }
    }
}

/// The options that every provider has.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockOptions {
    pub nodes_per_block: u32,
    pub init_blocks: u32,
    pub min_blocks: u32,
    pub max_blocks: u32,
    pub parallelism: f64,
    /// Shell text that runs before the node, in the same shell.
    pub worker_init: String,
    pub launcher: Launcher,
}

/// The names of the fields of [`BlockOptions`].
pub(super) const COMMON: [&str; 7] =
    ["nodes_per_block", "init_blocks", "min_blocks", "max_blocks", "parallelism", "worker_init", "launcher"];

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            nodes_per_block: 1,
            init_blocks: 1,
            min_blocks: 0,
            max_blocks: 1,
            parallelism: 1.0,
            worker_init: String::new(),
            launcher: Launcher::default(),
        }
    }
}

impl TryFrom<Map<String, Value>> for ProviderOptions {
    type Error = InvalidOptions;

    fn try_from(mut own: Map<String, Value>) -> Result<Self, InvalidOptions> {
        let common: Map<_, _> = COMMON.into_iter().filter_map(|name| own.remove_entry(name)).collect();
        let shape = |error: serde_json::Error| InvalidOptions::Shape(error.to_string());
        let blocks = serde_json::from_value(common.into()).map_err(shape)?;
        Ok(Self { blocks, kind: serde_json::from_value(own.into()).map_err(shape)? })
    }
}

impl BlockOptions {
    pub(super) fn check(&self) -> Result<(), InvalidOptions> {
        let refuse = |option, must| Err(InvalidOptions::Range { option, must });
        if self.nodes_per_block == 0 {
            return refuse("nodes_per_block", "at least 1");
        }
        if self.max_blocks < self.min_blocks {
            return refuse("max_blocks", "at least min_blocks");
        }
        if !(0.0..=1.0).contains(&self.parallelism) {
            return refuse("parallelism", "between 0 and 1");
        }
        Ok(())
    }
}

impl ProviderOptions {
    pub(crate) fn check(&self) -> Result<(), InvalidOptions> {
        self.blocks.check()
    }

    /// The class name users know.
    pub fn name(&self) -> &'static str {
        match self.kind {
            ProviderKind::LocalProvider(_) => "LocalProvider",
        }
    }
}
