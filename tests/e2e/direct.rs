//! Who reads through the kernel's pages sees what is written past them.

use crate::harness::programs::{SUBJECTS, compiled_on_its_own};
use crate::harness::{Mount, SPECRUN, run};

/// So many writes are enough: where the kernel keeps old pages it does so in every second one.
const ROUNDS: &str = "200";

fn beside_a_reader(words: &[&str]) {
    let mount = Mount::new();
    let subject = compiled_on_its_own(&mount, SUBJECTS, "direct");
    for how in ["asynchronous", "synchronous"] {
        let words = [words, &[subject.to_str().expect("a path in UTF-8"), how, ROUNDS, "file"]].concat();
        let said = run(&mount.path(), words[0], &words[1..]);
        assert_eq!(said, format!("0 of {ROUNDS} writes not seen, seen at last\n"), "{how}");
    }
    mount.check();
}

#[test]
fn whoever_reads_beside_direct_writes_sees_each_when_it_is_done() {
    beside_a_reader(&[]);
}

#[test]
fn whoever_reads_beside_direct_writes_in_a_job_sees_each_when_it_is_done() {
    beside_a_reader(&[SPECRUN, "--quiet", "--"]);
}
