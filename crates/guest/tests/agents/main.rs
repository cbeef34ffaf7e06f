//! Agents seen through a link: what every agent must do is checked on the fake and on the real
//! server alike.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

/// Makes a test for each kind of agent of each function named.
macro_rules! conformance {
    ($($name:ident)*) => {
        mod fake {
            use crate::support::Target;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(Target::fake()).await; })*
        }
        mod real {
            use crate::support::Target;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(Target::real()).await; })*
        }
    };
}

mod commands;
mod connections;
mod files;
mod freezing;
mod real_agent;
mod support;
