//! `image`: what instances are made from.

pub(super) mod import;

pub(super) mod ls;

pub(super) mod rm;
