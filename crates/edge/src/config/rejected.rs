//! Why a document is not applied.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Protocol;

/// Why a document is not applied. The one before it stays live, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Rejected {
    /// Written by a build that knows more or less than this one.
    #[error("the configuration has format {given}, this edge reads {known}")]
    Format {
        /// Of the document.
        given: u32,
        /// Of this build.
        known: u32,
    },
    /// Two rules for the same names on the same port.
    #[error("rules {rule} and {other} both want {hostname} on port {port}")]
    HostnameInUse {
        /// The later one.
        rule: String,
        /// The earlier one.
        other: String,
        /// Of the later one.
        hostname: String,
        /// Of both.
        port: u16,
    },
    /// A rule or forward that contradicts itself.
    #[error("{rule}: {reason}")]
    Rule {
        /// Its id.
        rule: String,
        /// In a sentence.
        reason: String,
    },
    /// A certificate that cannot be read or does not fit its key.
    #[error("certificate {certificate}: {reason}")]
    Certificate {
        /// Its name.
        certificate: String,
        /// In a sentence.
        reason: String,
    },
    /// TLS without a certificate.
    #[error("{rule}: no certificate covers {hostname}")]
    NoCertificate {
        /// Its id.
        rule: String,
        /// Of the rule.
        hostname: String,
    },
    /// Another program, or another part of the document, has the port.
    #[error("{protocol} port {address}, wanted by {wanted_by}, is in use")]
    PortInUse {
        /// The transport.
        protocol: Protocol,
        /// Where.
        address: SocketAddr,
        /// A rule, forward, or `dns`.
        wanted_by: String,
    },
    /// The port cannot be had for another reason: no permission, no such address.
    #[error("cannot listen on {protocol} {address} for {wanted_by}: {reason}")]
    CannotListen {
        /// The transport.
        protocol: Protocol,
        /// Where.
        address: SocketAddr,
        /// A rule, forward, or `dns`.
        wanted_by: String,
        /// The system's words.
        reason: String,
    },
    /// The document could not be written down.
    #[error("cannot keep the configuration: {reason}")]
    NotKept {
        /// The system's words.
        reason: String,
    },
}
