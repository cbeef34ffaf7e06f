//! Where instances are: what routes, names and policies are looked up in.

mod table;

use std::net::IpAddr;

use ipnet::IpNet;
use model::{InstanceId, Name, State};
use serde::{Deserialize, Serialize};

use crate::config::DomainPattern;

pub(crate) use table::{Directory, Known, Snapshot};

/// What the edge knows of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Its outside address, as long as it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Rises whenever connections of before must not be used any more: at every start, restore
    /// and change of address. Connections of an older generation are closed.
    pub generation: u64,
    /// Requests are sent to `Running` only.
    pub state: State,
    /// Guests see the names of their own group; without one, only their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What it may resolve.
    pub egress: Egress,
    /// Private networks that it may reach all the same, so that names may point there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reachable: Vec<IpNet>,
}

/// What a guest may resolve outside the zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// Everything.
    Open,
    /// Nothing.
    None,
    /// These domains; every address is reported, and allowed by whoever listens, before the guest
    /// learns it.
    Domains(Vec<DomainPattern>),
}

/// A change of the directory. The number of a change must follow that of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DirectoryUpdate {
    /// All instances that there are.
    Replace {
        /// Any number to count from.
        sequence: u64,
        /// All of them.
        entries: Vec<Entry>,
    },
    /// Some changed, some are gone.
    Change {
        /// One more than the last.
        sequence: u64,
        /// New, or to be replaced.
        upsert: Vec<Entry>,
        /// Gone.
        remove: Vec<InstanceId>,
    },
}

/// A change that does not follow the one before; send [`DirectoryUpdate::Replace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the directory's next change is number {expected}")]
pub struct OutOfSequence {
    /// What would have followed.
    pub expected: u64,
}
