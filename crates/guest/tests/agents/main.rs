//! Agents seen through a link: what every agent must do is checked on the fake and on the real
//! server alike, and on the latter over each kind of channel.
//!
//! Where the kernel has no vsock that leads back to itself, the tests over it say that they are
//! skipped; `real_vsock` runs them in a guest, whose kernel has it.
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
        mod listening {
            use crate::support::Target;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(Target::listening()).await; })*
        }
        mod vsock {
            use crate::support::Target;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                if let Some(target) = Target::vsock() { super::$name(target).await; }
            })*
        }
    };
}

/// Makes a test on each kind of socket of each function named.
macro_rules! on_sockets {
    ($($name:ident)*) => {
        mod unix {
            use crate::support::Target;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(Target::listening()).await; })*
        }
        mod vsock {
            use crate::support::Target;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                if let Some(target) = Target::vsock() { super::$name(target).await; }
            })*
        }
    };
}

mod address;
mod commands;
mod connections;
mod files;
mod freezing;
mod listening;
mod real_agent;
mod support;
