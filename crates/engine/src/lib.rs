//! Runs tasks: a scheduling core that decides without IO, providers, launchers, the node and the Python worker.
//!
//! It may never know AMQP, REST or YAML.
