//! Contents of files: small ones in the record store, blocks of larger ones in content files beside it.
//!
//! A content file (a *layer*, which is one blob of the engine) holds the blocks that one writer changed in one content, at their
//! natural offsets. Of a layer's block at most one version's bytes ever lie there: a block is rewritten in place or goes to a fresh layer.

mod allocate;
mod io;
mod layers;

pub use allocate::Places;
pub use layers::Content;
