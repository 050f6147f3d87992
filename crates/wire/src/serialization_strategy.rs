//! Serialization strategies: the identifiers and names that say how a Python object was serialized.
//!
//! A serialized buffer begins with two characters and a newline. This crate never interprets what follows.

use std::fmt;

/// The kind of objects that a strategy serializes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Functions, classes, anything callable.
    Code,
    /// Arguments and results.
    Data,
}

/// A way to serialize a Python object, by its class name in the SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Strategy {
    AllCodeStrategies,
    AllDataStrategies,
    CombinedCode,
    DillCode,
    DillCodeSource,
    DillCodeTextInspect,
    DillDataBase64,
    JsonData,
    PickleCode,
    PureSourceDill,
    PureSourceTextInspect,
}

use Strategy::*;

/// A buffer does not begin with the identifier of a strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid header: {0:?}")]
pub struct InvalidHeader(pub String);

impl Strategy {
    pub const ALL: [Self; 11] = [
        AllCodeStrategies,
        AllDataStrategies,
        CombinedCode,
        DillCode,
        DillCodeSource,
        DillCodeTextInspect,
        DillDataBase64,
        JsonData,
        PickleCode,
        PureSourceDill,
        PureSourceTextInspect,
    ];

    /// The two characters that begin a buffer.
    pub const fn identifier(self) -> &'static str {
        match self {
            DillDataBase64 => "00",
            DillCode => "01",
            PickleCode => "02",
            DillCodeTextInspect => "03",
            DillCodeSource => "04",
            CombinedCode => "10",
            JsonData => "11",
            AllCodeStrategies => "12",
            AllDataStrategies => "13",
            PureSourceDill => "sd",
            PureSourceTextInspect => "st",
        }
    }

    /// The class name in the SDK.
    pub const fn name(self) -> &'static str {
        match self {
            DillDataBase64 => "DillDataBase64",
            DillCode => "DillCode",
            PickleCode => "PickleCode",
            DillCodeTextInspect => "DillCodeTextInspect",
            DillCodeSource => "DillCodeSource",
            CombinedCode => "CombinedCode",
            JsonData => "JSONData",
            AllCodeStrategies => "AllCodeStrategies",
            AllDataStrategies => "AllDataStrategies",
            PureSourceDill => "PureSourceDill",
            PureSourceTextInspect => "PureSourceTextInspect",
        }
    }

    pub const fn kind(self) -> Kind {
        match self {
            DillDataBase64 | JsonData | AllDataStrategies => Kind::Data,
            AllCodeStrategies
            | CombinedCode
            | DillCode
            | DillCodeSource
            | DillCodeTextInspect
            | PickleCode
            | PureSourceDill
            | PureSourceTextInspect => Kind::Code,
        }
    }

    /// Whether users may select it. `PickleCode` is only decoded.
    pub const fn selectable(self) -> bool {
        !matches!(self, PickleCode)
    }

    pub fn from_identifier(identifier: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.identifier() == identifier)
    }

    /// Reads the import path of a strategy class as clients send it: `globus_compute_sdk.serialize.JSONData`, or
    /// with the module `concretes` in it.
    pub fn from_import_path(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("globus_compute_sdk.serialize.")?;
        let name = rest.strip_prefix("concretes.").unwrap_or(rest);
        Self::ALL.into_iter().find(|strategy| strategy.name() == name)
    }

    /// The strategy's import path, in the spelling to which the SDK converts the other one.
    pub fn import_path(self) -> String {
        format!("globus_compute_sdk.serialize.concretes.{}", self.name())
    }

    /// Reads a serialized buffer's header: the strategy, and what follows the header.
    pub fn of(buffer: &str) -> Result<(Self, &str), InvalidHeader> {
        let header = || InvalidHeader(buffer.chars().take(3).collect());
        let (identifier, rest) = buffer.split_at_checked(2).ok_or_else(header)?;
        let body = rest.strip_prefix('\n').ok_or_else(header)?;
        let strategy = Self::from_identifier(identifier).ok_or_else(header)?;
        Ok((strategy, body))
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
