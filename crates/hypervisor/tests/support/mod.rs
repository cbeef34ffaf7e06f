//! Guests for tests.

pub(crate) mod notebook;
