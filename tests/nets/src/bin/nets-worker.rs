//! Performs what it is told, a line each, and answers a line each; see the crate's documentation.

fn main() -> std::process::ExitCode {
    mojavefs_nets::worker::main()
}
