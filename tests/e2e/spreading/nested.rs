//! Jobs inside of jobs that read one another's undecided work: nobody waits for itself, and what an inner one has read counts
//! for the outer one.

use crate::harness::jobs::Running;
use crate::harness::{Mount, SPECRUN, text, until};

/// How long all jobs of one test may take, as `timeout` has it; whoever waits for ever is ended by it, with 124.
const LIMIT: &str = "40";

/// How a job reads what another has changed.
#[derive(Clone, Copy)]
enum Reads {
    /// By itself.
    Plainly(&'static [&'static str]),
    /// In a job of its own.
    Inside(&'static [&'static str]),
}

impl Reads {
    /// What the job itself is given, and what it does to read a file into another.
    fn words(self, from: &str, to: &str) -> (&'static [&'static str], String) {
        match self {
            Reads::Plainly(options) => (options, format!("cat {from} > {to}")),
            Reads::Inside(options) => {
                (&[], format!("timeout {LIMIT} {SPECRUN} {} -- cat {from} > {to}", options.join(" ")))
            }
        }
    }
}

/// So many jobs each change a file, all wait until all have, and each reads the next one's in its way: all are final.
fn ring(ways: &[Reads]) {
    let mount = Mount::new();
    for number in 0..ways.len() {
        mount.write(&format!("file{number}"), "old\n");
    }
    let beside = mount.beside("").display().to_string();
    let jobs: Vec<Running<'_>> = ways
        .iter()
        .enumerate()
        .map(|(number, reads)| {
            let next = (number + 1) % ways.len();
            let (options, reading) = reads.words(&format!("file{next}"), &format!("seen{number}"));
            let wrote = format!("echo new > file{number}; touch {beside}wrote{number}");
            let meets = format!("until [ -e {beside}go ]; do sleep 0.01; done");
            mount.start_freely(&format!("job{number}"), options, &format!("{wrote}; {meets}; {reading} || exit 9"))
        })
        .collect();
    until("all have written", || (0..ways.len()).all(|number| mount.beside(&format!("wrote{number}")).exists()));
    std::fs::write(mount.beside("go"), "").expect("say that they read");
    jobs.iter().for_each(|job| job.let_exit(0));
    for (number, job) in jobs.into_iter().enumerate() {
        let output = job.wait();
        assert!(output.status.success(), "job {number}: {:?} {}", output.status, text(&output.stderr));
    }
    for number in 0..ways.len() {
        let files = [format!("file{number}"), format!("seen{number}")];
        assert_eq!(files.map(|file| mount.read(&file)), ["new\n", "new\n"], "job {number}");
    }
    assert!(mount.status().is_empty());
    mount.check();
}

const JOIN: &[&str] = &[];
const START: &[&str] = &["--from-start"];
const WAIT: &[&str] = &["--on-read", "wait"];

#[test]
fn two_that_read_each_other_inside_of_jobs_become_final_together() {
    for options in [JOIN, START] {
        ring(&[Reads::Inside(options), Reads::Inside(options)]);
    }
}

#[test]
fn one_that_reads_inside_of_a_job_and_one_that_does_not_become_final_together() {
    ring(&[Reads::Inside(JOIN), Reads::Plainly(JOIN)]);
    ring(&[Reads::Plainly(JOIN), Reads::Inside(JOIN)]);
}

#[test]
fn three_that_read_in_a_ring_become_final_together() {
    ring(&[Reads::Inside(JOIN), Reads::Inside(JOIN), Reads::Inside(JOIN)]);
    ring(&[Reads::Inside(JOIN), Reads::Plainly(JOIN), Reads::Inside(START)]);
}

#[test]
fn two_whose_reads_wait_for_each_other_inside_of_jobs_join() {
    ring(&[Reads::Inside(WAIT), Reads::Inside(WAIT)]);
    ring(&[Reads::Inside(WAIT), Reads::Inside(JOIN)]);
}

#[test]
fn a_wait_inside_of_a_job_for_one_that_waits_for_that_joins() {
    ring(&[Reads::Inside(WAIT), Reads::Plainly(JOIN)]);
    ring(&[Reads::Inside(WAIT), Reads::Plainly(WAIT)]);
    ring(&[Reads::Inside(WAIT), Reads::Inside(WAIT), Reads::Inside(WAIT)]);
}

#[test]
fn a_job_inside_of_another_is_part_of_it_as_soon_as_it_ends() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let writer = mount.start("writer", &[], "echo new > data");
    let outer = mount.start("outer", &["--retries", "0"], &format!("{SPECRUN} -- cat data > copy; touch done"));
    let depends = |number: u64| {
        let of_outer = mount.status().into_iter().find(|status| status["id"] == number).expect("it is undecided");
        of_outer["depends_on"].as_array().expect("a list").iter().any(|on| on["id"] == writer.spec())
    };
    assert!(depends(outer.spec()), "with what it depends on");
    assert_eq!(writer.exit(1).status.code(), Some(1));
    assert_eq!(outer.exit(0).status.code(), Some(75));
    assert!(!mount.exists("copy") && !mount.exists("done"));
    mount.check();
}

#[test]
fn an_isolated_job_inside_one_that_has_joined_another_is_in_no_conflict_with_what_it_sees_of_that() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let writer = mount.start("writer", &[], "echo new > data");
    let script = format!("cat data > copy; {SPECRUN} --isolate -- cat data > seen");
    let outer = mount.start("outer", &["--retries", "0"], &script);
    assert_eq!(writer.exit(0).status.code(), Some(0));
    let output = outer.exit(0);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(["copy", "seen"].map(|file| mount.read(file)), ["new\n", "new\n"]);
    mount.check();
}

#[test]
fn what_a_failed_job_had_read_counts_for_the_one_around_it() {
    for options in ["", "--from-start"] {
        let mount = Mount::new();
        mount.write("data", "old\n");
        let writer = mount.start("writer", &[], "echo new > data");
        let script = format!("{SPECRUN} {options} -- grep -q old data || touch not-old");
        let outer = mount.start_freely("outer", &[], &script);
        until("the inner one has failed", || mount.beside("outer.through").exists());
        assert_eq!(writer.exit(1).status.code(), Some(1));
        let output = outer.exit(0);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(!mount.exists("not-old"), "it came of what never happened");
        mount.check();
    }
}

#[test]
fn a_read_waits_for_a_job_beside_it_and_not_for_the_one_around_both() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let beside = mount.beside("").display().to_string();
    let first = format!(
        "{SPECRUN} -- sh -c 'echo new > data; touch {beside}wrote; until [ -e {beside}go ]; do sleep 0.01; done; exit 1'"
    );
    let second = format!("{SPECRUN} --on-read wait --retries 0 -- sh -c 'touch {beside}reads; cat data' > copy");
    let script = format!("{first} & until [ -e {beside}wrote ]; do sleep 0.01; done; {second}; wait");
    let outer = mount.start_freely("outer", &[], &script);
    until("the second one is about to read", || mount.beside("reads").exists());
    std::fs::write(mount.beside("go"), "").expect("let the first one end");
    let output = outer.exit(0);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((mount.read("copy"), mount.read("data")), ("old\n".into(), "old\n".into()), "it has waited");
    mount.check();
}

#[test]
fn a_read_does_not_wait_for_what_has_become_part_of_the_job_around_it() {
    let mount = Mount::new();
    let beside = mount.beside("").display().to_string();
    let waits_for = |sign: &str| format!("until [ -e {beside}{sign} ]; do sleep 0.01; done");
    let script = format!(
        "timeout {LIMIT} {SPECRUN} --on-read wait -- sh -c 'echo p > p; touch {beside}wrote; {}; cat q > copy' & {}
         {SPECRUN} -- sh -c 'cat p > q'; touch {beside}parted; wait $!",
        waits_for("parted"),
        waits_for("wrote")
    );
    let outer = mount.start_freely("outer", &[], &script);
    let output = outer.exit(0);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((mount.read("q"), mount.read("copy")), ("p\n".into(), "p\n".into()), "{}", text(&output.stderr));
    mount.check();
}

#[test]
fn a_job_inside_of_another_that_falls_alone_is_run_again() {
    for third_waits in [false, true] {
        let mount = Mount::new();
        for name in ["data", "other"] {
            mount.write(name, "old\n");
        }
        let beside = mount.beside("").display().to_string();
        let writer = mount.start("writer", &[], "echo new > data");
        let inner = format!("cat data other > copy; touch {beside}read; until [ -e {beside}go ]; do sleep 0.01; done");
        let until_changed = format!("until [ -e {beside}changed ]; do sleep 0.01; done");
        let outer =
            format!("echo new > mine; touch {beside}mine; {until_changed}; {SPECRUN} --from-start -- sh -c '{inner}'");
        let outer = mount.start_freely("outer", &[], &outer);
        until("the outer one has changed something", || mount.beside("mine").exists());
        // One that the inner job meets, and that can't be final before the outer one is.
        let third = third_waits.then(|| mount.start("third", &[], "cat mine > seen; echo new > other"));
        std::fs::write(mount.beside("changed"), "").expect("let the inner one begin");
        until("the inner one has read", || mount.beside("read").exists());
        third.iter().for_each(|third| third.let_exit(0));
        assert_eq!(writer.exit(1).status.code(), Some(1));
        std::fs::write(mount.beside("go"), "").expect("let the inner one end");
        let output = outer.exit(0);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let copy = if third_waits { "old\nnew\n" } else { "old\nold\n" };
        assert_eq!((mount.read("copy"), mount.read("mine")), (copy.into(), "new\n".into()));
        if let Some(third) = third {
            assert!(third.wait().status.success());
        }
        mount.check();
    }
}
