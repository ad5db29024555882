//! Where a job can't go back to the read: the reason is named, and it goes back as far as it must.

use super::{Job, let_go, mounted, runs};
use crate::harness::text;
use std::fs;

#[test]
fn what_stands_in_the_way_is_named_and_the_job_goes_back_to_its_start() {
    require_root!();
    let read = "open('data').read()\n";
    let python = |script: &str| vec!["python3".to_owned(), "-c".to_owned(), script.to_owned()];
    let shell = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let cases = [
        (&[][..], shell("cat data > result; cat ../fifo"), "another process of the job"),
        (&[], shell("sleep 1000 & read text < data; cat ../fifo; kill $!"), "more than one process"),
        (
            &[],
            python(&format!(
                "import threading, os\ne = threading.Event()\nthreading.Thread(target=e.wait).start()\n{read}\
                 open('../fifo').read(); e.set()"
            )),
            "several threads",
        ),
        (&[], python(&format!("import os\np = os.pipe()\n{read}open('../fifo').read()")), "pipe:"),
        (&[], python(&format!("import os\nos.setpgid(0, 0)\n{read}open('../fifo').read()")), "process group"),
        (&[], python(&format!("import os\nos.seteuid(65534)\n{read}open('../fifo').read()")), "rights"),
        (&[], python(&format!("import mmap\nm = mmap.mmap(-1, 4096)\n{read}open('../fifo').read()")), "shares memory"),
        (
            &[],
            python(&format!(
                "import mmap\nf = open('../shared', 'w+b'); f.truncate(4096)\nm = mmap.mmap(f.fileno(), 4096)\n{read}\
                 open('../fifo').read()"
            )),
            "/shared",
        ),
        (
            &[],
            python(&format!(
                "import fcntl\nf = open('../lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n{read}open('../fifo').read()"
            )),
            "/lock) is locked",
        ),
        (
            &[],
            python(&format!(
                "import fcntl, struct\nf = open('../lock', 'w')\nF_OFD_SETLK = 37\n\
                 fcntl.fcntl(f, F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 5, 5, 0))\n{read}\
                 open('../fifo').read()"
            )),
            "/lock) is locked",
        ),
        (&["--from-start"], python(&format!("{read}open('../fifo').read()")), "--from-start"),
        (&["--output", "hold"], python(&format!("{read}open('../fifo').read()")), "--output hold"),
    ];
    let mount = mounted();
    crate::harness::sh(&mount.beside(""), "chmod 666 fifo");
    for (options, command, reason) in cases {
        let first = mount.start("first", &[], "echo new > data");
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let mut job = Job::start(&mount, options, &words);
        let joined = job.joined(&mount, "data");
        let why = joined["why_not_to_the_read"].as_str().unwrap_or_default();
        assert!(joined["back_to"] == "start" && why.contains(reason), "{command:?}: {joined}");
        let id = mount.spec_of(&words.join(" ")).expect("it is undecided").to_string();
        let told = text(&mount.mojavefs(&["why", &id]).stdout);
        assert!(told.contains("would go back to its start (") && told.contains(reason), "{told}");
        first.exit(1);
        job.until_said("running again (1 of 3)");
        let_go(&mount);
        let (code, said) = job.end();
        assert_eq!(code, Some(0), "{command:?}: {said}");
    }
    mount.check();
}

#[test]
fn a_read_that_cannot_be_interrupted_goes_back_to_an_earlier_one() {
    require_root!();
    let mount = mounted();
    mount.write("other", "old\n");
    let script = "
import mmap, os
open('../runs', 'a').write('run\\n')
other = mmap.mmap(os.open('other', os.O_RDONLY), 4, prot=mmap.PROT_READ)
one = open('data').read().strip()
open('../fifo').read()
two = other[:3].decode()
open('../gate').read()
open('result', 'w').write(one + ' ' + two)
";
    let first = mount.start("first", &[], "echo new > data");
    let mut job = Job::python(&mount, &[], script);
    job.joined(&mount, "data");
    let second = mount.start("second", &[], "echo new > other");
    let_go(&mount);
    let joined = job.joined(&mount, "other");
    assert_eq!(joined["back_to"], "earlier read", "{joined}");
    assert!(joined["why_not_to_the_read"].as_str().is_some_and(|why| why.contains("could not be interrupted")));
    second.exit(1);
    job.until_said("going on from the read (1 of 3)");
    assert_eq!(job.joined(&mount, "data")["back_to"], "read", "it has joined the first again");
    let_go(&mount);
    fs::write(mount.beside("gate"), "go\n").expect("the other fifo");
    job.until_said("done; waits until");
    first.exit(0);
    let (code, said) = job.end();
    assert_eq!((code, mount.read("result"), runs(&mount)), (Some(0), "new old".into(), "run\n".into()), "{said}");
}
