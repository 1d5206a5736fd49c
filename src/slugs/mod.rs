//! Slugs: what was deployed, as directories named after what is in them.
//!
//! Invariant: a directory of a slug's name is whole, and has just what its list says; whatever is under way has another
//! name, and is removed by the next daemon.

mod list; // what is in a slug, and its name
mod unpack; // an archive becomes a directory
mod shelf; // where they are kept, checked and removed

pub use list::Damage;
pub use shelf::{Shelf, ShelfError, Slug, id_of};
pub use unpack::UnpackError;
