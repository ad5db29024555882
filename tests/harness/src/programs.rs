//! The programs that tests run besides the project's own: compiled as their users would.

use super::{Mount, SPECRUN, project, text};
use std::path::PathBuf;
use std::process::Command;

/// The folder of the programs that only tests run.
pub const SUBJECTS: &str = "tests/e2e/subjects";
/// The folder of the examples that libmojave comes with.
pub const EXAMPLES: &str = "mojavefs/process/examples";
const HEADERS: &str = "mojavefs/process/include";

/// A C program of a folder of the project, linked with the library.
pub fn compiled(mount: &Mount, dir: &str, name: &str) -> PathBuf {
    let libraries = SPECRUN.path().parent().expect("the target directory").display();
    let words = [format!("-L{libraries}"), "-lmojave".to_owned(), format!("-Wl,-rpath,{libraries}")];
    c(mount, dir, name, &words.each_ref().map(String::as_str))
}

/// The same with the library inside.
pub fn compiled_with_it_inside(mount: &Mount, dir: &str, name: &str) -> PathBuf {
    let library = SPECRUN.path().with_file_name("libmojave.a");
    let library = library.to_str().expect("a path in UTF-8");
    c(mount, dir, name, &[library, "-lpthread", "-ldl", "-lm", "-lgcc_s"])
}

/// A C program that needs no other file to run, and knows nothing of the library.
pub fn compiled_on_its_own(mount: &Mount, dir: &str, name: &str) -> PathBuf {
    c(mount, dir, name, &["-static", "-lm"])
}

/// A library that is put before the C library.
pub(crate) fn preloaded(mount: &Mount, dir: &str, name: &str) -> PathBuf {
    c(mount, dir, name, &["-shared", "-fPIC", "-ldl"])
}

fn c(mount: &Mount, dir: &str, name: &str, linking: &[&str]) -> PathBuf {
    let program = mount.beside(name);
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-I"]).arg(project(HEADERS)).arg("-o").arg(&program);
    let output = cc.arg(project(dir).join(name).with_extension("c")).args(linking).output().expect("a C compiler");
    assert!(output.status.success(), "{}", text(&output.stderr));
    program
}

/// Lets the Python of a command, or of what it starts, find the package.
pub fn with_python_package(command: &mut Command) -> &mut Command {
    command.env("LIBMOJAVE", SPECRUN.path().with_file_name("libmojave.so"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONPATH", project("mojavefs/process/python"))
}
