//! The store: a directory with a SQLite database, and long bodies as files.
//!
//! | part | what it does |
//! |---|---|
//! | [`rows`] | what is written: an answer and its request, as one row |
//! | [`open`] | opens a directory, checks its version, drops what is half-written |
//! | [`writer`] | writes, commits in groups, and says when |
//! | [`gathering`] | what gathers for the writing thread |
//! | `journal` | rows that are safe, and on their way into the database |
//! | [`reader`] | a thread that reads what isn't in memory |
//! | [`files`] | long bodies: complete before they have their name |
//! | `known` | digests of bodies that came before |
//! | [`verify`] | checks digests |

pub mod files;
pub mod gathering;
pub(crate) mod journal;
pub(crate) mod known;
pub mod open;
pub mod reader;
pub mod rows;
pub mod verify;
pub mod writer;

pub use self::{
    files::Files,
    journal::JournalError,
    open::{Durability, Store, StoreError},
    reader::Reader,
    rows::{BodyPlace, Kind, Row},
    writer::Writer,
};
