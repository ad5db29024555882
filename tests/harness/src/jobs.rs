//! Jobs that run side by side, each as far as the test lets it.

use super::{Mount, text, until};
use std::fs;
use std::process::{Child, Output, Stdio};

/// A job that waits at the end of its script until it is told how to exit.
pub struct Running<'a> {
    mount: &'a Mount,
    name: String,
    child: Option<Child>,
}

impl Mount {
    /// Starts a job and returns once its script is through; it goes on when it is told to.
    pub fn start(&self, name: &str, options: &[&str], script: &str) -> Running<'_> {
        let running = self.start_freely(name, options, script);
        until(&format!("job {name} is through"), || self.beside(&format!("{name}.through")).exists());
        running
    }

    /// Starts a job without waiting for its script.
    pub fn start_freely(&self, name: &str, options: &[&str], script: &str) -> Running<'_> {
        let beside = self.beside("");
        for left in ["through", "exit"] {
            let _ = fs::remove_file(beside.join(format!("{name}.{left}")));
        }
        let beside = beside.display();
        let script = format!(
            "{script}\ntouch {beside}/{name}.through\nuntil [ -e {beside}/{name}.exit ]; do sleep 0.005; done\n\
             exit $(cat {beside}/{name}.exit)"
        );
        let mut command = self.specrun_command(options, &script);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("specrun runs");
        Running { mount: self, name: name.to_owned(), child: Some(child) }
    }

    /// The number of the undecided speculation whose command contains this text.
    pub fn spec_of(&self, command: &str) -> Option<u64> {
        let found = self.status().into_iter().find(|s| s["command"].as_str().is_some_and(|c| c.contains(command)));
        found.and_then(|status| status["id"].as_u64())
    }
}

impl Running<'_> {
    /// Lets it exit with this code.
    pub fn let_exit(&self, code: i32) {
        // In one step: it must not be read half written.
        let path = self.mount.beside(&format!("{}.exit", self.name));
        let half = self.mount.beside(&format!("{}.half", self.name));
        fs::write(&half, code.to_string()).and_then(|()| fs::rename(&half, path)).expect("say how to exit");
    }

    /// Lets it exit with this code, and returns what it said in the end.
    pub fn exit(mut self, code: i32) -> Output {
        self.let_exit(code);
        self.child.take().expect("it runs").wait_with_output().expect("it ends")
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Output {
        self.child.take().expect("it runs").wait_with_output().expect("it ends")
    }

    /// Its number.
    pub fn spec(&self) -> u64 {
        self.mount.spec_of(&format!("/{}.through", self.name)).expect("it is undecided")
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a job that does not wait, and says what it then depends on.
pub fn depends_on(mount: &Mount, script: &str) -> Vec<u64> {
    let output = mount.specrun(&["--no-wait", "--json"], script);
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    let said = text(&output.stderr);
    let json: serde_json::Value =
        serde_json::from_str(said.lines().last().unwrap_or_default()).expect("--json says JSON");
    json["waits_for"].as_array().expect("a list").iter().filter_map(serde_json::Value::as_u64).collect()
}
