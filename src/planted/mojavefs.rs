//! `mojavefs` with faults in it, for the tests to find.

#[path = "../bin/mojavefs.rs"]
mod program;

fn main() -> std::process::ExitCode {
    program::main()
}
