//! `specrun` with faults in it, for the tests to find.

#[path = "../bin/specrun.rs"]
mod program;

fn main() -> std::process::ExitCode {
    program::main()
}
