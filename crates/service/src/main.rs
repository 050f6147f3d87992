//! `farcall`: the service and its administration.

fn main() {}
