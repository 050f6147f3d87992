//! The operator's side: configuration, start, administration, health, backup, and what is wrong with an installation.

pub mod administration;
pub mod backup;
pub mod config;
pub mod data_directory;
pub mod doctor;
pub mod health;
pub mod listen_plan;
pub mod serve;
pub mod start_obstacles;
