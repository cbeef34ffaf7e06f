//! What is true of the whole host when nothing is under way, and what it looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hypervisor::VmStatus;
use memory::Image;
use model::{InstanceId, InstanceRecord, State};

use daemon::instances::Networking;

use super::World;
use super::verbs::PATIENCE;

/// Everything that must not change by a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) instances: BTreeMap<String, Portrait>,
    pub(crate) machines: BTreeMap<String, i32>,
    pub(crate) files: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Portrait {
    pub(crate) state: State,
    pub(crate) record: InstanceRecord,
    pub(crate) live_forks: u64,
}

impl World {
    /// Waits until every instance is at rest or fully up.
    pub(crate) async fn settle(&self) {
        for record in self.all_records() {
            self.settle_one(&record.id).await;
        }
    }

    async fn settle_one(&self, id: &InstanceId) {
        let instances = &self.daemon().instances;
        // An instance that goes meanwhile is settled too.
        let Ok(outcome) = instances.wait(id, State::Running, PATIENCE).await else {
            return;
        };
        if outcome.state == State::Running {
            let instances = std::sync::Arc::clone(instances);
            let id = id.clone();
            let waited = self
                .daemon()
                .runtime()
                .spawn(async move { instances.wait_for_link(&id).await.is_ok() });
            assert!(waited.await.unwrap(), "no line to a running guest");
        }
    }

    pub(crate) fn all_records(&self) -> Vec<InstanceRecord> {
        let entries = self.records.instances().unwrap();
        entries
            .into_iter()
            .map(|entry| entry.unwrap().record)
            .collect()
    }

    /// Checks what holds whenever nothing is under way, and describes the host.
    pub(crate) async fn picture(&self) -> Picture {
        self.settle().await;
        let mut instances = BTreeMap::new();
        for entry in self.records.instances().unwrap() {
            let entry = entry.unwrap();
            let published = self.daemon().instances.published(&entry.record.id).unwrap();
            let portrait = Portrait {
                state: published.state,
                record: comparable(entry.record),
                live_forks: entry.live_forks,
            };
            instances.insert(portrait.record.id.to_string(), portrait);
        }
        let mut machines = BTreeMap::new();
        for (id, pid, status) in self.machines.alive().await {
            assert_eq!(
                status,
                VmStatus::Running,
                "{id} does something else than running"
            );
            assert_eq!(
                machines.insert(id, pid),
                None,
                "two machines of one instance"
            );
        }
        let picture = Picture {
            instances,
            machines,
            files: files(&self.layout.instances()),
        };
        self.check(&picture);
        picture
    }

    fn check(&self, picture: &Picture) {
        let ids: Vec<&String> = picture.instances.keys().collect();
        let directories = names(&self.layout.instances());
        assert_eq!(
            directories.iter().collect::<Vec<_>>(),
            ids,
            "directories and records"
        );
        for (id, portrait) in &picture.instances {
            let record = &portrait.record;
            assert_eq!(record.intent, None, "{id} has something under way");
            let up = picture.machines.contains_key(id);
            let expected = match (up, &record.standby, record.template) {
                (true, None, false) => State::Running,
                (false, None, false) => State::Stopped,
                (false, Some(_), false) => State::Standby,
                (false, Some(_), true) => State::Template,
                other => panic!("{id} contradicts itself: {other:?} {record:?}"),
            };
            assert_eq!(portrait.state, expected, "{id} {record:?}");
            self.check_files(record);
            let forks = picture.instances.values();
            let count = forks.filter(|other| other.record.parent.as_ref() == Some(&record.id));
            assert_eq!(portrait.live_forks, count.count() as u64, "forks of {id}");
            if portrait.live_forks > 0 {
                assert_eq!(
                    portrait.state,
                    State::Template,
                    "{id} is unlocked while forks live"
                );
            }
        }
        for id in picture.machines.keys() {
            assert!(
                picture.instances.contains_key(id),
                "a machine that nobody knows: {id}"
            );
        }
        self.check_network(picture);
        let disks = names(&self.layout.root().join("disks"));
        assert!(disks.iter().all(|name| !name.starts_with('.')), "{disks:?}");
    }

    /// Exactly the machines that are up are on the network, where their records say.
    fn check_network(&self, picture: &Picture) {
        let Networking::Ready(network) = self.daemon().instances.network() else {
            return;
        };
        let mut leased: Vec<_> = network
            .leases()
            .into_iter()
            .map(|(owner, lease)| (owner, lease.slot.0))
            .collect();
        leased.sort();
        let mut recorded = Vec::new();
        for (id, portrait) in &picture.instances {
            let wants = picture.machines.contains_key(id) && portrait.record.spec.network.enabled;
            assert_eq!(portrait.record.lease.is_some(), wants, "slot of {id}");
            recorded.extend(portrait.record.lease.map(|lease| (id.clone(), lease.slot)));
        }
        assert_eq!(leased, recorded, "slots in use and in records");
    }

    /// Slots of the network that somebody has.
    pub(crate) fn slots_in_use(&self) -> usize {
        self.owners().len()
    }

    /// How many of them an instance has.
    pub(crate) fn slots_of(&self, id: &str) -> usize {
        self.owners().iter().filter(|owner| *owner == id).count()
    }

    fn owners(&self) -> Vec<String> {
        let Networking::Ready(network) = self.daemon().instances.network() else {
            panic!("no network");
        };
        let leases = network.leases().into_iter();
        leases.map(|(owner, _)| owner).collect()
    }

    /// Whether every slot and every machine is of an instance that runs and is not busy.
    pub(crate) async fn nothing_is_lost(&self) -> bool {
        let running = |id: &str| {
            let id = id.parse().unwrap();
            let published = self.daemon().instances.published(&id);
            published.is_ok_and(|now| now.state == State::Running && !now.busy)
        };
        let machines = self.machines.alive().await;
        self.owners().iter().all(|owner| running(owner))
            && machines.iter().all(|(id, ..)| running(id))
    }

    fn check_files(&self, record: &InstanceRecord) {
        let dir = self.layout.instance(&record.id);
        let image = record.standby.as_ref().or(record.base.as_ref());
        let wanted: Vec<String> = image.iter().map(ToString::to_string).collect();
        assert_eq!(names(&dir.memory()), wanted, "memory images of {record:?}");
        if let Some(image) = image {
            let image = Image::open(&dir.image(image)).unwrap();
            image.verify(&memory::Verified::default()).unwrap();
        }
        let disk = names(&dir.disk());
        if let Some(top) = disk.last() {
            let mode = std::fs::metadata(dir.disk().join(top)).unwrap().mode();
            assert_eq!(mode & 0o200, 0o200, "{record:?} cannot write to its disk");
        }
        let has_disk = !disk.is_empty();
        assert_eq!(has_disk, record.standby.is_none(), "disk of {record:?}");
    }

    /// Deletes every instance, forks first, and checks that nothing is left.
    pub(crate) async fn delete_everything(&self) {
        loop {
            let records = self.all_records();
            if records.is_empty() {
                break;
            }
            let parents: BTreeSet<_> = records.iter().filter_map(|r| r.parent.clone()).collect();
            for record in records
                .iter()
                .filter(|record| !parents.contains(&record.id))
            {
                self.delete(record.id.as_str()).await;
            }
        }
        let picture = self.picture().await;
        assert_eq!(picture.files, BTreeSet::new());
        assert_eq!(self.host.machine_count(), 0);
    }
}

/// Clocks go on.
fn comparable(mut record: InstanceRecord) -> InstanceRecord {
    record.phases = model::PhaseClock::new(State::Stopped, model::UnixMillis(0));
    record
}

/// Entries of a directory, sorted; none if it is not there.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Every file below `dir` but logs, which grow.
fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            if name != "logs" {
                found.extend(
                    files(&path)
                        .into_iter()
                        .map(|below| format!("{name}/{below}")),
                );
            }
        } else {
            found.insert(name);
        }
    }
    found
}
