//! Where the project's own programs are.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// One of the project's programs, as the workspace has built it: `Command::new` takes it, and formatting gives its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `mojavefs`.
    Mojavefs,
    /// `specrun`.
    Specrun,
}

/// Tests lie in a folder of the directory that the programs are in.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = std::env::current_exe().expect("a test knows its program");
    let found = test.ancestors().skip(1).find(|dir| dir.join("mojavefs").is_file() && dir.join("specrun").is_file());
    found.unwrap_or_else(|| panic!("no programs beside {}: build the workspace first", test.display())).to_owned()
});

/// Those with faults in them, where one is asked for.
static PATHS: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
    let kind = if std::env::var_os(mojavefs::planted::VARIABLE).is_some() { "-planted" } else { "" };
    ["mojavefs", "specrun"].map(|name| DIRECTORY.join(format!("{name}{kind}")))
});

impl Program {
    /// Its path.
    pub fn path(self) -> &'static Path {
        &PATHS[self as usize]
    }
}

impl AsRef<OsStr> for Program {
    fn as_ref(&self) -> &OsStr {
        self.path().as_os_str()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}
