//! Where answers go.

use mojavefs_fuse::Replier;
use mojavefs_fuse::protocol::Answer;
use nix::errno::Errno;

/// The answer to one request, which is given once.
pub(super) trait Reply: Send + 'static {
    /// Gives it.
    fn give(self, answer: Result<Answer, Errno>);

    /// Calls `tell` once the caller has got a signal, where the transport says so.
    fn when_interrupted(&self, tell: Box<dyn FnOnce() + Send>);
}

impl Reply for Replier {
    fn give(self, answer: Result<Answer, Errno>) {
        self.reply(answer.map_err(|errno| errno as i32));
    }

    fn when_interrupted(&self, tell: Box<dyn FnOnce() + Send>) {
        Replier::when_interrupted(self, tell);
    }
}
