//! Runs a command and keeps all of what it changed, or nothing.

fn main() -> std::process::ExitCode {
    mojavefs_client::specrun_main()
}
