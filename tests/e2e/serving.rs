//! A server on its own, and its clients.

use crate::harness::served::{Server, try_serve};
use crate::harness::stopped::Stopped;
use crate::harness::{Mount, digest, is_running, sh, text, until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{fs, thread};

const VERSION: u16 = 18;

fn hello(version: u16) -> Vec<u8> {
    [b"MOJAVEFS".as_slice(), &version.to_le_bytes()].concat()
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 9).expect("short");
    [&length.to_le_bytes()[..], &[kind], &7u64.to_le_bytes(), body].concat()
}

/// Says something to a server and returns all that it answers until it hangs up.
fn say(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(server.socket()).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    // It may hang up before it has heard everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("the server does not hang up"),
        _ => answer,
    }
}

#[test]
fn clients_see_what_others_have_closed() {
    require_root!();
    let server = Server::new();
    let (near, far) = (server.mount(), server.mount_tcp());
    for round in 0..50 {
        let name = format!("f{}", round % 7);
        near.write(&name, &format!("near {round}"));
        assert_eq!(far.read(&name), format!("near {round}"));
        far.write(&name, &format!("far {round}"));
        assert_eq!(near.read(&name), format!("far {round}"));
        fs::remove_file(far.at(&name)).expect("remove");
        until("the name is gone for the other too", || !near.exists(&name));
    }
}

#[test]
fn jobs_of_one_client_commit_for_all() {
    require_root!();
    let server = Server::new();
    let (near, far) = (server.mount(), server.mount_tcp());
    near.write("a", "old");
    assert_eq!(far.read("a"), "old");
    let spec = far.held("echo -n new > a; mkdir d; echo -n more > d/b");
    assert_eq!((near.read("a"), near.exists("d")), ("old".into(), false));
    assert_eq!(near.status()[0]["id"].to_string(), spec);
    assert!(near.mojavefs(&["commit", &spec]).status.success());
    assert_eq!((near.read("a"), far.read("d/b")), ("new".into(), "more".into()));
    let failed = far.specrun(&[], "rm -r a d; exit 3");
    assert_eq!(failed.status.code(), Some(3));
    assert_eq!((near.read("a"), near.read("d/b")), ("new".into(), "more".into()));
}

#[test]
fn the_first_of_two_clients_to_commit_wins() {
    require_root!();
    let server = Server::new();
    let (near, far) = (server.mount(), server.mount_tcp());
    near.write("a", "0");
    let (first, second) = (near.held_apart("echo -n 1 > a"), far.held_apart("echo -n 2 > a"));
    assert!(far.mojavefs(&["commit", &second]).status.success());
    let refused = near.mojavefs(&["commit", &first]);
    assert_eq!(refused.status.code(), Some(75), "{}", text(&refused.stderr));
    assert_eq!(near.read("a"), "2");
}

#[test]
fn a_tree_through_a_socket_is_the_same_tree() {
    require_root!();
    let server = Server::new();
    let (near, far) = (server.mount(), server.mount_tcp());
    let native = server.beside("native");
    let script = "mkdir -p t/d && cd t && for i in $(seq 200); do echo $i > d/f$i; done && ln d/f1 hard && ln -s d/f2 soft && \
        head -c 5000000 /dev/zero | tr '\\0' x > large && dd if=/dev/zero of=hole bs=1 count=1 seek=3000000 2>/dev/null && \
        chmod 751 d && setfattr -n user.a -v b large && find . -exec touch -h -d @1000000 {} +";
    fs::create_dir(&native).expect("mkdir");
    sh(&native, script);
    sh(&far.path(), script);
    let expected = digest::copied(&native.join("t"));
    assert_eq!(digest::copied(&near.at("t")), expected);
    assert_eq!(digest::copied(&far.at("t")), expected);
}

#[test]
fn a_killed_client_leaves_only_what_it_held() {
    require_root!();
    let server = Server::new();
    let (near, far) = (server.mount(), server.mount_tcp());
    let held = far.held("echo held > h");
    let mut job = far.specrun_command(&[], "echo x > x; touch ready; sleep 1000").spawn().expect("specrun runs");
    until("the job has begun", || near.status().len() == 2);
    kill(far.daemon(), Signal::SIGKILL).expect("kill the client");
    far.may_be_dead();
    until("its job is undone", || near.status().len() == 1);
    assert_eq!(near.status()[0]["id"].to_string(), held);
    assert!(!near.exists("x"));
    assert!(near.mojavefs(&["commit", &held]).status.success());
    assert_eq!(near.read("h"), "held\n");
    assert!(!job.wait().expect("wait").success());
    drop(far);
}

#[test]
fn a_server_that_ends_loses_nothing() {
    require_root!();
    let mut server = Server::new();
    let near = server.mount();
    near.may_be_dead();
    near.write("a", "kept");
    let held = near.held("echo -n held > h");
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let client = server.mount();
        client.may_be_dead();
        client.write(signal.as_str(), "x");
        sh(&client.path(), "sync .");
        server.end(signal);
        assert_eq!(server.socket().exists(), signal == Signal::SIGKILL, "an orderly end takes the socket away");
        let lost = fs::read(client.at("a")).expect_err("nobody answers");
        assert_eq!(lost.raw_os_error(), Some(nix::libc::ENOTCONN), "{lost}");
        server.fsck();
        server.start_again();
        let again = server.mount();
        assert_eq!((again.read("a"), again.read(signal.as_str())), ("kept".into(), "x".into()));
        assert_eq!(again.status()[0]["id"].to_string(), held);
    }
}

#[test]
fn nothing_is_shown_of_what_a_kernel_had_kept_once_the_server_is_gone() {
    require_root!();
    let mut server = Server::new();
    let client = server.mount();
    client.may_be_dead();
    client.write("a", "kept");
    symlink("a", client.at("link")).expect("a link");
    let open = fs::File::open(client.at("a")).expect("open");
    let looks: [Box<dyn Fn() -> io::Result<()>>; 5] = [
        Box::new(|| fs::metadata(client.at("a")).map(drop)),
        Box::new(|| fs::read_link(client.at("link")).map(drop)),
        Box::new(|| fs::read(client.at("a")).map(drop)),
        Box::new(|| open.read_exact_at(&mut [0; 4], 0)),
        Box::new(|| open.metadata().map(drop)),
    ];
    looks.iter().for_each(|look| look().expect("it is there"));
    server.end(Signal::SIGKILL);
    until("nothing is shown", || looks.iter().all(|look| look().is_err()));
    server.start_again();
}

#[test]
fn jobs_end_at_once_with_the_server() {
    require_root!();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut server = Server::new();
        let client = server.mount();
        client.may_be_dead();
        let mut job = client.specrun_command(&[], "echo x > a; echo $$ > ../pid; exec sleep 1000");
        let job = job.stderr(std::process::Stdio::piped()).spawn().expect("specrun runs");
        let pid = || fs::read_to_string(client.beside("pid")).unwrap_or_default().trim().parse().ok();
        until("the job has begun", || pid().is_some());
        server.end(signal);
        let output = job.wait_with_output().expect("wait");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(75), "{said}");
        assert!(said.contains(server.unix()) && said.contains("is gone") && said.contains("was undone"), "{said}");
        assert!(!is_running(nix::unistd::Pid::from_raw(pid().expect("a pid"))), "its processes are ended");
        server.start_again();
        assert!(!server.mount().exists("a"));
    }
}

#[test]
fn without_the_key_nobody_gets_in() {
    require_root!();
    let server = Server::new();
    let output = try_serve(&["--listen", "tcp:127.0.0.1:0"], &server.beside("other"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("needs --key FILE"), "{}", text(&output.stderr));
    let refused = |words: &[&str], why: &str| {
        let output = Mount::refused(server.tcp(), words);
        assert!(output.contains(why), "{output}");
    };
    refused(&[], "needs --key FILE");
    let other = server.beside("other-key");
    sh(&server.beside(""), &format!("{} keygen other-key", crate::harness::MOJAVEFS));
    refused(&["--key", other.to_str().expect("text")], "does not have the same key");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).expect("chmod");
    refused(&["--key", other.to_str().expect("text")], "others may use the key file");
    let store = server.beside("empty");
    fs::write(&store, "no key").expect("write");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o600)).expect("chmod");
    refused(&["--key", store.to_str().expect("text")], "no key file");
    let mode = fs::metadata(server.socket()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its user and root reach the socket");
}

#[test]
fn two_servers_keep_apart() {
    require_root!();
    let server = Server::new();
    let output = try_serve(&["--listen", server.unix()], &server.beside("other"));
    assert!(text(&output.stderr).contains("another server listens there"), "{}", text(&output.stderr));
    let elsewhere = format!("unix:{}", server.beside("second").display());
    let output = try_serve(&["--listen", &elsewhere], &server.store());
    assert!(text(&output.stderr).contains("in use by another process"), "{}", text(&output.stderr));
    let file = server.beside("file");
    fs::write(&file, "mine").expect("write");
    let output = try_serve(&["--listen", &format!("unix:{}", file.display())], &server.beside("other"));
    assert!(text(&output.stderr).contains("no socket is there"), "{}", text(&output.stderr));
    assert_eq!(fs::read(&file).expect("it is still there"), b"mine");
}

#[test]
fn strangers_are_sent_away() {
    require_root!();
    let server = Server::new();
    let mount = server.mount();
    mount.write("a", "1");
    assert_eq!(say(&server, b"GET / HTTP/1.1\r\n\r\n"), b"");
    let other = say(&server, &hello(VERSION + 1));
    assert_eq!(other, [&hello(VERSION)[..], &1u16.to_le_bytes()].concat(), "both versions are known, and the verdict");
    let too_long = [&hello(VERSION)[..], &(1u32 << 30).to_le_bytes(), &[1; 9]].concat();
    assert_eq!(say(&server, &too_long).len(), 12, "only the handshake is answered");
    for kind in [0, 2, 3, 6, 255] {
        let answer = say(&server, &[hello(VERSION), frame(kind, b"abc")].concat());
        assert_eq!(answer.len(), 12, "kind {kind}");
    }
    assert_eq!(mount.read("a"), "1");
}

#[test]
fn a_request_that_cannot_be_read_is_refused_and_the_next_is_answered() {
    require_root!();
    let server = Server::new();
    let mut stream = UnixStream::connect(server.socket()).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    stream.write_all(&hello(VERSION)).expect("write");
    stream.read_exact(&mut [0; 12]).expect("the handshake");
    // No request has this number.
    for _ in 0..3 {
        stream.write_all(&frame(1, &[250, 1, 2, 3])).expect("write");
        let mut head = [0; 13];
        stream.read_exact(&mut head).expect("an answer");
        let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize - 9];
        stream.read_exact(&mut body).expect("its body");
        assert_eq!((head[4], head[5]), (2, 7), "a reply to that request");
        assert!(text(&body).contains("cannot read the request"), "{}", text(&body));
    }
}

/// Bytes that repeat for a seed (xorshift).
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn garbage_never_brings_the_server_down() {
    require_root!();
    let server = Server::new();
    let mount = server.mount();
    mount.write("a", "1");
    for seed in 0..300u64 {
        println!("seed {seed}");
        let mut bytes = hello(VERSION);
        for part in 0..8 {
            let body = noise(seed * 8 + part, 1 + (seed as usize * 7 + part as usize) % 60);
            // The first byte of a request says which it is: all of them get a turn.
            let body = [&[(seed % 48) as u8][..], &body].concat();
            bytes.extend(frame(1, &body));
        }
        if seed % 3 == 0 {
            bytes.extend(noise(seed, 500));
        }
        let mut stream = UnixStream::connect(server.socket()).expect("connect");
        let _ = stream.write_all(&bytes);
        // Some hang up at once, others first hear all answers there are.
        if seed % 2 == 0 {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    assert_eq!(mount.read("a"), "1");
    mount.write("b", "2");
    assert!(mount.status().is_empty(), "what strangers began went with them");
}

#[test]
fn silent_strangers_hold_nobody_up() {
    require_root!();
    let server = Server::new();
    let strangers: Vec<_> = (0..200)
        .map(|number| {
            let mut stream = UnixStream::connect(server.socket()).expect("connect");
            // Half a handshake, or half a frame.
            let all = [hello(VERSION), frame(1, b"abc")].concat();
            stream.write_all(&all[..number % 20]).expect("write");
            stream
        })
        .collect();
    let mount = server.mount();
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let path = mount.at(format!("f{number}"));
            thread::spawn(move || (0..50).for_each(|round| fs::write(&path, round.to_string()).expect("write")))
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("written"));
    assert_eq!(mount.read("f3"), "49");
    drop(strangers);
}

#[test]
fn whoever_connects_without_the_key_takes_no_client_s_place() {
    require_root!();
    let server = Server::new();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("more descriptors");
    let address = server.tcp().strip_prefix("tcp:").expect("an address");
    // More than the clients that a server takes.
    let _crowd: Vec<TcpStream> = (0..1100).map(|_| TcpStream::connect(address).expect("connect")).collect();
    let far = server.mount_tcp();
    far.write("a", "x");
    assert_eq!(far.read("a"), "x");
}

#[test]
fn a_client_that_takes_no_notices_keeps_nobody_else_from_beginning_and_deciding() {
    require_root!();
    let server = Server::new();
    let (here, there) = (server.mount(), server.mount());
    here.write("f", "old\n");
    assert_eq!(there.read("f"), "old\n");
    let held = here.held("echo held > g");
    let stopped = Stopped::new(there.daemon());
    let mut job = here.specrun_command(&["--quiet"], "echo new > f").spawn().expect("specrun runs");
    until("it has changed it", || here.status().iter().any(|spec| spec["changes"] == 1 && spec["state"] == "running"));
    // It is committed once the other client has forgotten what it has, or is given up.
    assert!(here.specrun(&["--quiet"], "true").status.success());
    assert!(here.mojavefs(&["shell", &held, "--", "true"]).status.success());
    assert!(here.mojavefs(&["abort", &held]).status.success());
    assert_eq!((here.status().len(), here.read("f").as_str()), (1, "old\n"));
    assert!(job.try_wait().expect("its status").is_none(), "the others have waited with it");
    drop(stopped);
    assert!(job.wait().expect("it ends").success());
    assert_eq!((here.read("f"), there.read("f")), ("new\n".into(), "new\n".into()));
}
