//! The live directory: one snapshot that readers share, replaced whole.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::InstanceId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{DirectoryUpdate, Entry, OutOfSequence};

/// An instance and the token that ends connections of its generation.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) entry: Entry,
    /// Cancelled when the generation or address is over.
    pub(crate) ended: CancellationToken,
}

/// All instances at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    sequence: u64,
    /// Whether anybody has said yet what there is.
    filled: bool,
    by_id: HashMap<InstanceId, Arc<Known>>,
    by_name: HashMap<String, Arc<Known>>,
    by_address: HashMap<IpAddr, Arc<Known>>,
}

impl Snapshot {
    /// By id or name; ids win, as in the API.
    pub(crate) fn find(&self, id_or_name: &str) -> Option<&Arc<Known>> {
        let by_id = || {
            id_or_name
                .parse()
                .ok()
                .and_then(|id: InstanceId| self.by_id.get(&id))
        };
        by_id().or_else(|| self.by_name.get(id_or_name))
    }

    /// By outside address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&Entry> {
        self.by_address.get(&address).map(|known| &known.entry)
    }

    /// Whether anybody has said yet what there is.
    pub(crate) fn is_filled(&self) -> bool {
        self.filled
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// What would make this snapshot again.
    pub(crate) fn to_update(&self) -> DirectoryUpdate {
        let mut entries: Vec<_> = self
            .by_id
            .values()
            .map(|known| known.entry.clone())
            .collect();
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        DirectoryUpdate::Replace {
            sequence: self.sequence,
            entries,
        }
    }

    /// The snapshot after a change, and the tokens of what is over.
    fn after(
        &self,
        update: DirectoryUpdate,
    ) -> Result<(Self, Vec<CancellationToken>), OutOfSequence> {
        let (sequence, entries) = match update {
            DirectoryUpdate::Replace { sequence, entries } => (sequence, entries),
            DirectoryUpdate::Change {
                sequence,
                upsert,
                remove,
            } => {
                let expected = self.sequence + 1;
                if !self.filled || sequence != expected {
                    return Err(OutOfSequence { expected });
                }
                let mut entries: HashMap<_, _> = self
                    .by_id
                    .iter()
                    .map(|(id, known)| (id.clone(), known.entry.clone()))
                    .collect();
                entries.extend(upsert.into_iter().map(|entry| (entry.id.clone(), entry)));
                for id in &remove {
                    entries.remove(id);
                }
                (sequence, entries.into_values().collect())
            }
        };
        let mut next = Self {
            sequence,
            filled: true,
            ..Self::default()
        };
        for entry in entries {
            let ended = match self.by_id.get(&entry.id) {
                Some(old) if old.entry.same_machine(&entry) => old.ended.clone(),
                Some(_) | None => CancellationToken::new(),
            };
            next.insert(Arc::new(Known { entry, ended }));
        }
        let over = self.by_id.values().filter(|old| {
            !next
                .by_id
                .get(&old.entry.id)
                .is_some_and(|new| new.entry.same_machine(&old.entry))
        });
        let over = over.map(|old| old.ended.clone()).collect();
        Ok((next, over))
    }

    fn insert(&mut self, known: Arc<Known>) {
        if let Some(name) = &known.entry.name {
            self.by_name
                .insert(name.as_str().to_owned(), Arc::clone(&known));
        }
        if let Some(address) = known.entry.address {
            self.by_address.insert(address, Arc::clone(&known));
        }
        self.by_id.insert(known.entry.id.clone(), known);
    }
}

impl Entry {
    /// Whether a connection to the one is a connection to the other.
    fn same_machine(&self, other: &Self) -> bool {
        self.generation == other.generation && self.address == other.address
    }
}

/// The live directory.
#[derive(Debug)]
pub(crate) struct Directory {
    current: watch::Sender<Arc<Snapshot>>,
}

impl Directory {
    pub(crate) fn new() -> Self {
        Self {
            current: watch::Sender::new(Arc::new(Snapshot::default())),
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.borrow())
    }

    /// Told of every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Changes the directory and ends the connections of what is over.
    pub(crate) fn update(&self, update: DirectoryUpdate) -> Result<u64, OutOfSequence> {
        let mut outcome = Ok(0);
        self.current
            .send_if_modified(|current| match current.after(update) {
                Ok((next, over)) => {
                    outcome = Ok(next.sequence);
                    *current = Arc::new(next);
                    // After the snapshot is replaced nobody can take a token that is over.
                    for ended in over {
                        ended.cancel();
                    }
                    true
                }
                Err(error) => {
                    outcome = Err(error);
                    false
                }
            });
        outcome
    }
}
