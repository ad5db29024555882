//! The one place that chooses an `errno`.

use mojavefs::protocol::fault::FaultKind;
use nix::errno::Errno;

/// What a program is told of a refused request.
pub(crate) fn of(kind: FaultKind) -> Errno {
    match kind {
        FaultKind::NotFound | FaultKind::NotFoundNow => Errno::ENOENT,
        FaultKind::Exists => Errno::EEXIST,
        FaultKind::NotDirectory => Errno::ENOTDIR,
        FaultKind::IsDirectory => Errno::EISDIR,
        FaultKind::NotEmpty => Errno::ENOTEMPTY,
        FaultKind::Invalid => Errno::EINVAL,
        FaultKind::NameTooLong => Errno::ENAMETOOLONG,
        FaultKind::FileTooLarge => Errno::EFBIG,
        FaultKind::TooManyLinks => Errno::EMLINK,
        FaultKind::NotPermitted => Errno::EPERM,
        FaultKind::AccessDenied => Errno::EACCES,
        FaultKind::NoAttribute => Errno::ENODATA,
        FaultKind::Range => Errno::ERANGE,
        FaultKind::NoSpace => Errno::ENOSPC,
        FaultKind::Io | FaultKind::Conflict | FaultKind::Decided | FaultKind::Protocol => Errno::EIO,
        FaultKind::Stale => Errno::ESTALE,
        FaultKind::Busy | FaultKind::Undecided => Errno::EBUSY,
        FaultKind::Again | FaultKind::Sealed | FaultKind::Locked | FaultKind::Queued => Errno::EAGAIN,
        FaultKind::Runs => Errno::ETXTBSY,
        FaultKind::Unsupported => Errno::EOPNOTSUPP,
        FaultKind::TooLarge => Errno::E2BIG,
        FaultKind::NoData => Errno::ENXIO,
        FaultKind::Disconnected | FaultKind::InDoubt => Errno::ENOTCONN,
        FaultKind::TimedOut => Errno::ETIMEDOUT,
        FaultKind::Deadlock => Errno::EDEADLK,
        // Asked for by the server of whoever said that it makes checkpoints, who never lets it through.
        FaultKind::Checkpoint => Errno::EAGAIN,
        FaultKind::Interrupted => Errno::EINTR,
    }
}
