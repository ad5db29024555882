//! The operations of the filesystem, by what they are about.

mod attributes;
mod content;
mod directories;
mod holes;
mod locks;
mod names;
mod stored;

pub use content::{Range, Write};
pub use directories::{Listed, Listing};
pub use holes::WritesOut;
pub use names::{NewFile, Rename};

use mojavefs::protocol::file::Attr;

/// Attributes of a file, and whether the kernel may keep them, and what led to them: it is told before they change.
pub type Given = (Attr, bool);
