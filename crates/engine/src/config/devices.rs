//! The options for accelerators and CPUs of workers.

use serde::{Deserialize, Serialize};

use super::error::InvalidOptions;

/// `available_accelerators`: how many, or their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Accelerators {
    Count(u32),
    Names(Vec<AcceleratorName>),
}

/// A name; integers are read as names too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AcceleratorName {
    Text(String),
    Number(i64),
}

impl Default for Accelerators {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Accelerators {
    pub(crate) fn len(&self) -> u32 {
        match self {
            Self::Count(count) => *count,
            Self::Names(names) => u32::try_from(names.len()).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names, in order; the worker of rank `i` gets the `i`-th. A count without names gives "0", "1" and so on.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Count(count) => (0..*count).map(|index| index.to_string()).collect(),
            Self::Names(names) => names
                .iter()
                .map(|name| match name {
                    AcceleratorName::Text(text) => text.clone(),
                    AcceleratorName::Number(number) => number.to_string(),
                })
                .collect(),
        }
    }
}

/// `cpu_affinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CpuAffinity {
    #[default]
    None,
    Block,
    BlockReverse,
    Alternating,
    /// One list of CPUs per worker.
    List(Vec<Vec<usize>>),
}

impl TryFrom<String> for CpuAffinity {
    type Error = InvalidOptions;

    fn try_from(text: String) -> Result<Self, InvalidOptions> {
        let text = text.to_lowercase();
        match text.as_str() {
            "none" => Ok(Self::None),
            "block" => Ok(Self::Block),
            "block-reverse" => Ok(Self::BlockReverse),
            "alternating" => Ok(Self::Alternating),
            other => {
                let lists =
                    other.strip_prefix("list:").ok_or_else(|| InvalidOptions::Affinity(text.clone()))?;
                lists
                    .split(':')
                    .map(parse_cpu_list)
                    .collect::<Option<Vec<_>>>()
                    .map(Self::List)
                    .ok_or(InvalidOptions::Affinity(text))
            }
        }
    }
}

impl From<CpuAffinity> for String {
    fn from(affinity: CpuAffinity) -> Self {
        match affinity {
            CpuAffinity::None => "none".into(),
            CpuAffinity::Block => "block".into(),
            CpuAffinity::BlockReverse => "block-reverse".into(),
            CpuAffinity::Alternating => "alternating".into(),
            CpuAffinity::List(lists) => {
                let mut text = String::from("list");
                for list in lists {
                    let cpus: Vec<_> = list.iter().map(usize::to_string).collect();
                    text.push(':');
                    text.push_str(&cpus.join(","));
                }
                text
            }
        }
    }
}

/// `a-b,c` as CPU numbers; none for anything else, and for more CPUs than any machine has.
fn parse_cpu_list(text: &str) -> Option<Vec<usize>> {
    const MAX_CPU: usize = 1 << 16;
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (first.trim().parse().ok()?, last.trim().parse().ok()?),
            None => {
                let only: usize = part.trim().parse().ok()?;
                (only, only)
            }
        };
        if last >= MAX_CPU || first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}
