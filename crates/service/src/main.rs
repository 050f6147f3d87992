//! `farcall`: the service and its administration.

fn main() -> std::process::ExitCode {
    service::cli::main()
}
