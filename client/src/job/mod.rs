//! specrun's engine: a view over the same path, the processes of a job, what becomes of them.

pub(crate) mod descriptors;
pub(crate) mod find;
pub(crate) mod namespace;
pub(crate) mod supervise;

use crate::control::{ask, receive, unexpected};
use crate::job::find::Filesystem;
use crate::mount::{self, MountOptions};
use mojavefs::error::{Fault, FaultKind};
use mojavefs::id::SpecId;
use mojavefs::wire::SpecState;
use mojavefs::wire::control::{Answer, Ask, Start};
use nix::unistd::geteuid;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

/// This process's view of a job or of a held speculation, over the filesystem's path.
pub(crate) struct JobView {
    stream: UnixStream,
    answers: Receiver<Answer>,
    mount: File,
    /// The speculation.
    pub(crate) spec: SpecId,
    /// It was decided by someone else.
    fallen: Arc<AtomicBool>,
}

impl JobView {
    /// Opens a view and puts it over the mountpoint in a mount namespace that this process enters. The working directory
    /// and inherited descriptors on the filesystem are in the view afterwards. `on_fall` is called, on another thread,
    /// when someone else decides the speculation.
    pub(crate) fn enter(
        filesystem: &Filesystem,
        start: Start,
        on_fall: impl Fn() + Send + 'static,
    ) -> Result<JobView, Fault> {
        let fault = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| Fault::new(FaultKind::Io, format!("{what}: {e}"))
        };
        let inherited = descriptors::on(&filesystem.mountpoint);
        namespace::enter()?;
        let stream = filesystem.connect()?;
        let daemon_uid = match ask(&stream, &Ask::Hello, None)?.0 {
            Answer::Daemon { uid, .. } => uid,
            other => return Err(unexpected(&other)),
        };
        let (answer, mount) = if daemon_uid == 0 {
            ask(&stream, &Ask::Start { start, mounted: false }, None)?
        } else {
            let privileged = geteuid().is_root() && !namespace::is_user_namespace();
            let options = MountOptions { others: false, privileged };
            let detached = mount::detached(filesystem.source.as_os_str().as_encoded_bytes(), options)
                .map_err(fault("make a mount for the job"))?;
            let (answer, _) = ask(&stream, &Ask::Start { start, mounted: true }, Some(&detached.device))?;
            (answer, Some(detached.mount))
        };
        let Answer::Started { spec, .. } = answer else { return Err(unexpected(&answer)) };
        let mount = mount.ok_or_else(|| Fault::new(FaultKind::Protocol, "the daemon sent no mount"))?;
        mount::attach(&mount, &filesystem.mountpoint)
            .map_err(fault(&format!("put the job's view over {}", filesystem.mountpoint.display())))?;
        let mount = File::open(&filesystem.mountpoint).map_err(fault("open the job's view"))?;
        inherited.reopen()?;
        let fallen = Arc::new(AtomicBool::new(false));
        let answers = listen(&stream, fallen.clone(), on_fall).map_err(fault("listen to the daemon"))?;
        Ok(JobView { stream, answers, mount, spec, fallen })
    }

    /// Someone else decided the speculation.
    pub(crate) fn has_fallen(&self) -> bool {
        self.fallen.load(Ordering::SeqCst)
    }

    /// Writes out what the kernel still holds for the view.
    pub(crate) fn drain(&self) -> Result<(), Fault> {
        let failed = |e: io::Error| Fault::new(FaultKind::Io, format!("write out the job's files: {e}"));
        mount::drain(&self.mount).map_err(failed)
    }

    /// Asks the daemon.
    pub(crate) fn ask(&self, ask: &Ask) -> Result<Answer, Fault> {
        let gone = || Fault::new(FaultKind::Disconnected, "the daemon behind the filesystem has gone");
        crate::control::send(&self.stream, ask, None).map_err(|_| gone())?;
        match self.answers.recv() {
            Ok(Answer::Refused(fault)) => Err(fault),
            Ok(answer) => Ok(answer),
            Err(_) => Err(gone()),
        }
    }
}

impl Drop for JobView {
    fn drop(&mut self) {
        // A daemon that is gone needs no farewell.
        let _ = self.ask(&Ask::Leave);
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Answers come through the channel; that the speculation was decided by someone else comes at any time.
fn listen(
    stream: &UnixStream,
    fallen: Arc<AtomicBool>,
    on_fall: impl Fn() + Send + 'static,
) -> io::Result<Receiver<Answer>> {
    let stream = stream.try_clone()?;
    let (sender, answers) = channel();
    let read = move || {
        while let Ok(Some((answer, _))) = receive::<Answer>(&stream) {
            match answer {
                Answer::Decided { state, .. } => {
                    if state == SpecState::Aborted {
                        fallen.store(true, Ordering::SeqCst);
                        on_fall();
                    }
                }
                answer => {
                    if sender.send(answer).is_err() {
                        return;
                    }
                }
            }
        }
        // A daemon that is gone has aborted the job.
        fallen.store(true, Ordering::SeqCst);
        on_fall();
    };
    std::thread::Builder::new().name("specrun-daemon".into()).spawn(read)?;
    Ok(answers)
}
