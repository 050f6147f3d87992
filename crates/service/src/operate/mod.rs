//! What operators need: configuration, start and stop, administration, health, backup, and checks of an installation.

pub mod administration;
pub mod backup;
pub mod config;
pub mod data_directory;
pub mod database;
pub mod doctor;
pub mod health;
pub mod listen_plan;
pub mod serve;
pub mod start_problems;
pub mod store_copy;
