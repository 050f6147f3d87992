//! `globus-compute-endpoint`: the agent on the research computer.

fn main() {}
