//! Where the kernel, a container or the settings of a machine keep jobs from what they need: they work all the same, or it is said what
//! can be done.

use crate::harness::host::OverHost;
use crate::harness::{MOJAVEFS, SPECRUN, sh, text};
use std::process::Output;

/// Without the right to mount, as root has it in most containers.
const NO_MOUNTS: &str = "setpriv --bounding-set=-sys_admin";
const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";

/// A job that is started by a script, which calls it `$JOB`.
fn job_by(host: &OverHost, namespaces: &[&str], script: &str) -> Output {
    let mut command = host.command("unshare");
    command
        .args(namespaces)
        .args(["sh", "-ec", script])
        .env("JOB", host.aside("specrun --retries 0 -- sh -c 'echo job > a'"));
    command.env("REFUSES_MOUNTS", REFUSES_MOUNTS);
    command.env_remove("XDG_RUNTIME_DIR").env("TMPDIR", host.aside("theirs")).output().expect("unshare runs")
}

/// A directory over which an ordinary user can work, too, in another one than `/tmp`, which may be changed for a job.
fn place() -> OverHost {
    let host = OverHost::beside(std::path::Path::new("/var/tmp"));
    sh(&host.aside("."), "mkdir -m 777 state theirs; chmod 777 project");
    for program in [MOJAVEFS, SPECRUN] {
        sh(&host.aside("."), &format!("cp {program} ."));
    }
    host
}

#[test]
fn a_job_runs_where_its_user_may_not_mount_or_is_the_first_process() {
    require_root!();
    let mount_proc = "mount -t proc -o hidepid=2 proc /proc";
    for (namespaces, script) in [
        // Root in a container.
        (&["-m"][..], format!("exec {NO_MOUNTS} sh -c \"exec $JOB\"")),
        (&["-U", "--map-root-user"], "sh -c \"exec $JOB\"".to_owned()),
        (&["-U", "--map-root-user", "-m"], "sh -c \"exec $JOB\"".to_owned()),
        // The job's `specrun` takes in whatever loses its parent, as does the first process of a container.
        (&["-m", "-p", "-f", "--mount-proc"], "eval \"exec $JOB\"".to_owned()),
        // Processes of others are not to be seen.
        (&["-m"], format!("{mount_proc}; sh -c \"exec $JOB\"")),
        (
            &["-m"],
            format!(
                "{mount_proc}; chown 65534:65534 .; mount --bind ../fuse /dev/fuse; exec {NOBODY} sh -c \"exec $JOB\""
            ),
        ),
        (&["-m"], "mount -o remount,bind,ro /proc; sh -c \"exec $JOB\"".to_owned()),
    ] {
        let host = place();
        sh(&host.aside("."), "mknod -m 666 fuse c 10 229");
        let output = job_by(&host, namespaces, &script);
        assert!(output.status.success(), "{namespaces:?} {script}: {output:?}");
        assert_eq!(host.read("a"), "job\n", "{namespaces:?} {script}: {output:?}");
    }
}

/// Runs a command to which the kernel refuses `mount`, though it has a user namespace: as AppArmor does on Ubuntu.
const REFUSES_MOUNTS: &str = "
import ctypes, os, struct, sys
MOUNT, ALLOW, EACCES = 165, 0x7fff0000, 0x00050000 | 13
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, MOUNT), (0x06, 0, 0, EACCES), (0x06, 0, 0, ALLOW)]
program = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
filter = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(steps), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter) == 0, ctypes.get_errno()
os.execvp(sys.argv[1], sys.argv[1:])
";

#[test]
fn what_keeps_a_job_from_running_is_said_with_what_can_be_done() {
    require_root!();
    let null = "mount --bind /dev/null /dev/fuse";
    let no_device = "mkdir dev; for name in null zero urandom; do touch dev/$name; mount --bind /dev/$name dev/$name; done; mount --rbind dev /dev";
    let closed = "mknod -m 600 ../fuse c 10 229; mount --bind ../fuse /dev/fuse";
    let job = "sh -c \"exec $JOB\"";
    for (namespaces, script, said) in [
        (
            &["-U", "--map-root-user"][..],
            format!("echo 0 > /proc/sys/user/max_user_namespaces; exec {NO_MOUNTS} {job}"),
            "user namespaces are switched off: `sysctl user.max_user_namespaces=",
        ),
        (
            &["-m"],
            format!("exec {NO_MOUNTS} python3 -c \"$REFUSES_MOUNTS\" {job}"),
            "nothing can be mounted in it, as where AppArmor restricts them (Ubuntu): `sysctl kernel.apparmor",
        ),
        (&["-m"], format!("{null}; {job}"), "/dev/fuse is something else than the FUSE device"),
        (&["-m"], format!("{no_device}; {job}"), "or start the container with `--device /dev/fuse`"),
        (&["-m"], format!("{closed}; exec {NOBODY} {job}"), "this user may not open it: as root `chmod 666 /dev/fuse`"),
        (
            &["-m"],
            format!("mount -o remount,bind,ro /proc; exec {NO_MOUNTS} {job}"),
            "/proc must be mounted writable for this user's jobs",
        ),
        (&["-m"], format!("umount -l /proc; {job}"), "/proc must be mounted"),
    ] {
        let host = place();
        let output = job_by(&host, namespaces, &script);
        assert_eq!(output.status.code(), Some(125), "{script}: {output:?}");
        assert!(text(&output.stderr).contains(said), "{script}: {output:?}");
        assert!(!host.at("a").exists(), "{script}");
    }
}

/// A root that is no mount's. What is bound there is one.
#[test]
fn in_a_changed_root_a_job_runs_over_what_is_bound_there() {
    require_root!();
    let host = place();
    sh(&host.aside("."), "mkdir root; cd root; mkdir project state; cp ../mojavefs ../specrun .");
    let script = "for name in bin dev lib lib64 proc run usr; do
            if [ -d /$name ]; then mkdir -p root/$name; mount --rbind /$name root/$name; fi
        done
        job() { chroot root sh -c 'cd project; MOJAVEFS_STATE=/state /specrun -- sh -c \"echo job > a\"' 2>&1; }
        job && exit 1
        mount --bind root/project root/project
        job; cat root/project/a
        pid=$(cat root/state/lock); kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.01; done";
    let mut unshare = host.command("unshare");
    let output = unshare.args(["-m", "sh", "-ec", script]).current_dir(host.aside(".")).output().expect("unshare runs");
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("`mount --bind /project /project` first"), "{output:?}");
    assert!(said.ends_with("\njob\n"), "{output:?}");
}
