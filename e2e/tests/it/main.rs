//! Tests on real guests, one file for each subject.

mod chains;
mod crash;
mod fanout;
mod identity;
mod images;
mod locks;
mod program;
mod table;
mod templates;
