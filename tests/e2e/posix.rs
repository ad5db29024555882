//! The public POSIX suite pjdfstest, on trunk and inside a job.

use crate::harness::digest::exact;
use crate::harness::{Mount, SPECRUN, text};
use std::path::PathBuf;
use std::process::{Command, Output};

const CONFIGURATION: &str = "
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.001
allow_remount = false
[dummy_auth]
entries = [ [\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"] ]
";
/// Of 398 cases these need what Linux or the configuration does not have.
const SKIPPED: &str = "0 failed, 16 skipped, 382 passed";

/// A test program from the crate registry, installed once beside the build.
pub(crate) fn tool(name: &str, version: &str) -> PathBuf {
    let built = PathBuf::from(crate::harness::MOJAVEFS);
    let root = built.ancestors().nth(2).expect("the target directory").join("test-tools");
    let program = root.join("bin").join(name);
    if !program.exists() {
        let mut install = Command::new("cargo");
        install.args(["install", "--quiet", "--locked", "--version", version, name, "--root"]).arg(&root);
        install.env("CARGO_TARGET_DIR", root.join("build"));
        let output = install.output().expect("cargo runs");
        assert!(output.status.success(), "cargo install {name}: {}", text(&output.stderr));
    }
    program
}

fn check(output: &Output) {
    let said = text(&output.stdout);
    let failed: Vec<&str> = said.lines().filter(|line| line.contains("FAILED")).collect();
    assert!(said.contains(SKIPPED), "{failed:#?}\n{}", said.lines().last().unwrap_or_default());
}

#[test]
fn pjdfstest_passes_on_trunk_and_inside_a_job() {
    require_root!();
    let program = tool("pjdfstest", "0.2.2");
    let mount = Mount::new();
    let configuration = mount.beside("pjdfstest.toml");
    std::fs::write(&configuration, CONFIGURATION).expect("write");
    let dir = mount.at("p");
    std::fs::create_dir(&dir).expect("mkdir");
    let words = |command: &mut Command| {
        command.arg("-c").arg(&configuration).arg("-p").arg(&dir).current_dir(&dir).output().expect("it runs")
    };
    check(&words(&mut Command::new(&program)));
    check(&words(Command::new(SPECRUN).arg("--quiet").arg("--").arg(&program)));
    // Undone: the suite passes, its job does not, and nothing of it is left.
    let before = exact(&mount.path());
    let fails = ["--quiet", "--", "sh", "-c", "\"$0\" \"$@\"; exit 1"];
    let undone = words(Command::new(SPECRUN).args(fails).arg(&program));
    check(&undone);
    assert_eq!(undone.status.code(), Some(1), "{}", text(&undone.stderr));
    assert!(exact(&mount.path()) == before, "an undone run left something");
    mount.check();
}
