//! Runs a command and keeps all of what it changed, or nothing.

pub(crate) fn main() -> std::process::ExitCode {
    mojavefs_client::specrun_main()
}
