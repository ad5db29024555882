//! Threads whose end nobody waits for.

use std::io;
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};

/// Runs `work` on a thread of this name (15 bytes of it are shown), whose end nobody waits for.
///
/// Such a thread must not be detached by whoever has started it, which is what dropping its handle does: `pthread_detach` looks at the
/// thread once more after it has detached it (glibc, bug 19951), and if that has ended meanwhile and its stack is unmapped, the
/// process ends. So each is detached by itself.
///
/// # Errors
///
/// No thread can be started.
pub fn detached(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (give, own) = channel::<JoinHandle<()>>();
    let run = move || {
        drop(own.recv());
        work();
    };
    let handle = Builder::new().name(name.to_owned()).spawn(run)?;
    // It waits for it, so it is there.
    let _ = give.send(handle);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_and_is_called_so() {
        let (tell, told) = channel();
        detached("mojavefs-one", move || drop(tell.send(std::thread::current().name().map(str::to_owned))))
            .expect("a thread");
        assert_eq!(told.recv().expect("it runs").as_deref(), Some("mojavefs-one"));
    }
}
