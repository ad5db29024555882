//! `--ask` over a directory of the host.

use crate::harness::host::OverHost;
use crate::harness::{SPECRUN, text};
use std::process::Output;

/// On a terminal of its own types each line when it is asked, and then, if that is said, that there is no more.
const AT_THE_PROMPT: &str = "
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
said, lines = b'', sys.argv[1].split(',')
while True:
    try:
        piece = os.read(terminal, 1000)
    except OSError:
        break
    if not piece:
        break
    said += piece
    if said.endswith(b'[h]old? ') and lines:
        line = lines.pop(0)
        os.write(terminal, b'\\x04' if line == 'EOF' else line.encode() + b'\\n')
sys.stdout.write(said.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

/// What `specrun --ask` comes to where this is answered, with commas between the lines.
fn asked(host: &OverHost, answers: &str) -> (Output, String) {
    let mut python = host.command("python3");
    python.args(["-c", AT_THE_PROMPT, answers]).arg(SPECRUN).args([
        "--ask",
        "--",
        "sh",
        "-c",
        "echo job > a; echo n > b",
    ]);
    let output = python.output().expect("python3 runs");
    let said = text(&output.stdout).replace('\r', "");
    (output, said)
}

#[test]
fn asking_shows_what_changed_and_does_what_is_answered() {
    for (answers, code, committed, held) in [
        ("c", 0, true, false),
        ("commit", 0, true, false),
        ("a", 1, false, false),
        ("h", 0, false, true),
        ("yes,,c", 0, true, false),
        ("no,EOF", 1, false, false),
        ("EOF", 1, false, false),
    ] {
        let host = OverHost::new();
        host.write("a", "old\n");
        let (output, said) = asked(&host, answers);
        assert_eq!(output.status.code(), Some(code), "{answers}: {said}");
        assert!(said.contains("project/a\n") && said.contains("project/b\n") && said.contains("2 changes\n"), "{said}");
        assert_eq!(said.contains("held as 1 "), held, "{answers}: {said}");
        // What is no answer is explained, and asked again.
        let wrong = answers.split(',').filter(|answer| ["yes", "no", ""].contains(answer)).count();
        assert_eq!(said.matches("hold leaves it undecided").count(), wrong, "{answers}: {said}");
        let left = if committed { ("job\n", true) } else { ("old\n", false) };
        assert_eq!((host.read("a").as_str(), host.at("b").exists()), left, "{answers}");
        let status = text(&host.mojavefs(&["status"]).stdout);
        assert_eq!(status.starts_with("1  held"), held, "{answers}: {status}");
    }
}

#[test]
fn without_a_terminal_nothing_is_committed_unasked() {
    let host = OverHost::new();
    let mut alone = host.command("setsid");
    let output = alone.arg("-w").arg(SPECRUN).args(["--ask", "--", "touch", "a"]).output();
    let output = output.expect("setsid runs");
    assert!(output.status.success() && text(&output.stderr).contains("held as 1 "), "{output:?}");
    assert!(text(&output.stderr).contains("there is no terminal"), "{output:?}");
    assert!(host.mojavefs(&["commit"]).status.success());
    assert!(host.at("a").exists());
}
