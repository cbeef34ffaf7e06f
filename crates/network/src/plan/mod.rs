//! Decisions of the network, without IO: who has which slot, what a policy becomes in the kernel, how things are named.

mod book;
mod elements;
mod names;
mod ruleset;

pub use book::{Book, Taken};
pub use elements::{Change, Element, elements, is_private};
pub use names::{Names, link_mark, table_mark};
pub use ruleset::{PRIVATE, Ruleset};
