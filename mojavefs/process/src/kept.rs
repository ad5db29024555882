//! Files of `/proc` about this process that stay open: to open one takes ten times as long as to read it.
//!
//! They are the library's descriptors, out of the program's way. A program that closes whatever is open closes these, too, and
//! may have the numbers for something else then: so each entry and abort begins with a look at them.

use crate::record::Ids;
use crate::sys;
use mojavefs_procfs::process::ProcPath;

/// What is kept open.
#[derive(Clone, Copy)]
pub(crate) enum About {
    Children,
    Descriptors,
    Mappings,
    Pages,
    Status,
    Timers,
}

/// How many of these there are.
const ABOUT: usize = 6;
/// Of how many descriptors what `/proc` says of them is kept open; of others it is opened each time.
const INFOS: usize = 8;

impl About {
    fn path(self, pid: i32) -> ProcPath {
        let own = ProcPath::of(0);
        match self {
            About::Children => own.then(b"/task/").number(pid).then(b"/children"),
            About::Descriptors => own.then(b"/fd"),
            About::Mappings => own.then(b"/maps"),
            About::Pages => own.then(b"/pagemap"),
            About::Status => own.then(b"/status"),
            About::Timers => own.then(b"/timers"),
        }
    }
}

/// One open file. Zeros: none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    pub(crate) fd: i32,
    device: u64,
    ino: u64,
}

impl File {
    const NONE: File = File { fd: 0, device: 0, ino: 0 };

    fn open(path: &ProcPath, from: usize) -> sys::Result<File> {
        let fd = sys::open(path.as_bytes(), libc::O_RDONLY)?;
        // Where the limit on descriptors was lowered it stays where it is.
        let moved = sys::fcntl(fd, libc::F_DUPFD_CLOEXEC, from);
        moved.is_ok().then(|| sys::close(fd));
        File::of(moved.unwrap_or(fd))
    }

    /// What a descriptor is of by now.
    pub(crate) fn of(fd: i32) -> sys::Result<File> {
        sys::fstat(fd).map(|stat| File { fd, device: stat.st_dev, ino: stat.st_ino })
    }

    fn is_open(&self) -> bool {
        self.ino != 0
    }

    /// Whether the descriptor is still of what it was opened for.
    pub(crate) fn is_itself(&self) -> bool {
        sys::fstat(self.fd).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (self.device, self.ino))
    }

    pub(crate) fn close(&self) {
        if self.is_itself() {
            sys::close(self.fd);
        }
    }
}

/// All of them. It begins as zeros.
#[repr(C)]
pub(crate) struct Kept {
    about: [File; ABOUT],
    /// What is said of the descriptors with these numbers.
    infos: [(i32, File); INFOS],
    /// The user and group ids with which they were opened: what they show depends on them.
    ids: Ids,
}

impl Kept {
    pub(crate) fn has(&self, fd: i32) -> bool {
        self.open().any(|file| file.fd == fd)
    }

    fn open(&self) -> impl Iterator<Item = &File> {
        self.about.iter().chain(self.infos.iter().map(|(_, file)| file)).filter(|file| file.is_open())
    }

    /// Forgets what the program has closed, and what was opened for others than `ids`.
    pub(crate) fn look(&mut self, ids: Ids) {
        if self.ids != ids {
            self.close();
            self.forget(|_| true);
            self.ids = ids;
        }
        self.forget(|file| !file.is_itself());
    }

    fn forget(&mut self, which: impl Fn(&File) -> bool) {
        let all = self.about.iter_mut().chain(self.infos.iter_mut().map(|(_, file)| file));
        all.filter(|file| file.is_open() && which(file)).for_each(|file| *file = File::NONE);
    }

    /// Closes them; a child of the program's, which shares this memory, changes nothing in it.
    pub(crate) fn close(&self) {
        self.open().for_each(File::close);
    }

    /// The descriptor of one of them, which is opened if it is not. Out of the program's way is `from` some number on.
    pub(crate) fn about(&mut self, what: About, from: usize, pid: i32) -> sys::Result<i32> {
        let file = &mut self.about[what as usize];
        if !file.is_open() {
            *file = File::open(&what.path(pid), from)?;
        }
        Ok(file.fd)
    }

    /// What `/proc` says of a descriptor, its locks included.
    pub(crate) fn info<'t>(&mut self, number: i32, from: usize, into: &'t mut [u8]) -> sys::Result<&'t [u8]> {
        let path = ProcPath::of(0).then(b"/fdinfo/").number(number);
        let (of, file) = &mut self.infos[number.unsigned_abs() as usize % INFOS];
        if !file.is_open() {
            (*of, *file) = (number, File::open(&path, from)?);
        }
        match *of == number {
            true => sys::read_at(file.fd, 0, into).map(|bytes| &into[..bytes]),
            false => sys::read_once(path.as_bytes(), into),
        }
    }
}
