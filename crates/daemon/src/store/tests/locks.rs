//! The template lock, against a reference model that is too simple to be wrong.

use std::collections::BTreeMap;

use model::{InstanceId, Operation, State, admit};
use proptest::prelude::*;

use super::super::{Store, StoreError};
use super::{id, record, store};

/// What a client may do; instances are numbered, so that operations meet.
#[derive(Debug, Clone)]
enum Deed {
    Create(u8),
    Promote(u8),
    Demote(u8),
    Fork { source: u8, forks: Vec<u8> },
    Delete(u8),
}

/// The truth: who is a template, and who is whose fork.
#[derive(Default)]
struct Reference {
    instances: BTreeMap<u8, (bool, Option<u8>)>,
}

impl Reference {
    fn forks_of(&self, number: u8) -> usize {
        self.instances
            .values()
            .filter(|(_, parent)| *parent == Some(number))
            .count()
    }
}

fn deed() -> impl Strategy<Value = Deed> {
    let number = 0_u8..12;
    prop_oneof![
        number.clone().prop_map(Deed::Create),
        number.clone().prop_map(Deed::Promote),
        number.clone().prop_map(Deed::Demote),
        (number.clone(), prop::collection::vec(0_u8..12, 1..4))
            .prop_map(|(source, forks)| Deed::Fork { source, forks }),
        number.prop_map(Deed::Delete),
    ]
}

fn state_of(template: bool) -> State {
    if template {
        State::Template
    } else {
        State::Standby
    }
}

fn delete(store: &Store, id: &InstanceId) -> Result<(), StoreError> {
    store.update_counted(id, |record, forks| {
        admit(Operation::Delete, state_of(record.template), forks)?;
        Ok(())
    })?;
    store.remove(id)
}

/// Carries a deed out on both sides and says whether each let it happen.
fn carry_out(deed: &Deed, store: &Store, truth: &mut Reference) -> (bool, bool) {
    match deed {
        Deed::Create(n) => create(*n, store, truth),
        Deed::Promote(n) => mark(*n, Operation::Promote, store, truth),
        Deed::Demote(n) => mark(*n, Operation::Demote, store, truth),
        Deed::Fork { source, forks } => fork(*source, forks, store, truth),
        Deed::Delete(n) => {
            let expected = truth.instances.contains_key(n) && truth.forks_of(*n) == 0;
            if expected {
                truth.instances.remove(n);
            }
            (expected, delete(store, &id(*n)).is_ok())
        }
    }
}

fn create(n: u8, store: &Store, truth: &mut Reference) -> (bool, bool) {
    let expected = !truth.instances.contains_key(&n);
    if expected {
        truth.instances.insert(n, (false, None));
    }
    let done = store.insert(&record(n, &format!("i{n}"), None));
    (expected, done.is_ok())
}

/// Promotes or demotes.
fn mark(n: u8, operation: Operation, store: &Store, truth: &mut Reference) -> (bool, bool) {
    let template = operation == Operation::Promote;
    let unlocked = template || truth.forks_of(n) == 0;
    let entry = truth
        .instances
        .get_mut(&n)
        .filter(|entry| entry.0 != template);
    let expected = entry.is_some() && unlocked;
    if let Some(entry) = entry.filter(|_| unlocked) {
        entry.0 = template;
    }
    let done = store.update_counted(&id(n), |record, forks| {
        admit(operation, state_of(record.template), forks)?;
        record.template = template;
        Ok(())
    });
    (expected, done.is_ok())
}

fn fork(source: u8, forks: &[u8], store: &Store, truth: &mut Reference) -> (bool, bool) {
    let mut fresh: Vec<u8> = Vec::new();
    for n in forks {
        if !truth.instances.contains_key(n) && !fresh.contains(n) {
            fresh.push(*n);
        }
    }
    let template = truth
        .instances
        .get(&source)
        .is_some_and(|(template, _)| *template);
    let expected = template && !fresh.is_empty();
    if expected {
        for n in fresh {
            truth.instances.insert(n, (false, Some(source)));
        }
    }
    let records = forks
        .iter()
        .map(|n| record(*n, &format!("i{n}"), Some(id(source))))
        .collect();
    let done = store.insert_forks(&id(source), must_be_template, records);
    (expected, done.is_ok())
}

fn must_be_template(record: &mut model::InstanceRecord) -> Result<(), StoreError> {
    if record.template {
        Ok(())
    } else {
        Err(model::Refusal::state("not a template").into())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is asked: the store allows exactly what the reference allows, counts
    /// exactly, and no fork is ever without its parent.
    #[test]
    fn no_order_of_operations_breaks_the_lock(deeds in prop::collection::vec(deed(), 1..60)) {
        let (_dir, store) = store();
        let mut truth = Reference::default();
        for deed in &deeds {
            let (expected, done) = carry_out(deed, &store, &mut truth);
            prop_assert_eq!(expected, done, "{:?}", deed);
        }
        let entries = store.instances().unwrap();
        prop_assert_eq!(entries.len(), truth.instances.len());
        for entry in entries {
            let entry = entry.unwrap();
            let number = truth.instances.keys().find(|n| id(**n) == entry.record.id).unwrap();
            prop_assert_eq!(entry.live_forks, truth.forks_of(*number) as u64);
            if let Some(parent) = &entry.record.parent {
                prop_assert!(store.instance(parent).is_ok(), "a fork without its parent");
            }
        }
    }
}

#[test]
fn rule_9_a_record_that_cannot_be_read_keeps_the_lock_closed() {
    let (dir, store) = store();
    store.insert(&record(1, "stump", None)).unwrap();
    store.insert(&record(2, "shoot", Some(id(1)))).unwrap();
    let damage = |text: &str| {
        rusqlite::Connection::open(dir.path().join("coppice.db"))
            .unwrap()
            .execute(
                "UPDATE instances SET record = ?2 WHERE id = ?1",
                [id(2).as_str(), text],
            )
            .unwrap();
    };
    for text in ["", "{", "{}", "{\"id\":1}"] {
        damage(text);
        for refused in [
            store.update_counted(&id(1), |_, _| Ok(())).unwrap_err(),
            store.live_forks(&id(1)).unwrap_err(),
        ] {
            assert!(
                matches!(&refused, StoreError::BadRecord { id, .. } if *id == super::id(2).to_string()),
                "{refused}"
            );
        }
        store.update(&id(1), |_| Ok(())).unwrap();
        let listed = store.instances().unwrap();
        assert!(
            listed[0].is_ok() && listed[1].is_err(),
            "the others are still listed"
        );
    }
}

#[test]
fn rule_10_the_database_itself_refuses_to_drop_a_parent() {
    let (_dir, store) = store();
    store.insert(&record(1, "stump", None)).unwrap();
    store.insert(&record(2, "shoot", Some(id(1)))).unwrap();
    // Without any of the checks above it.
    assert!(matches!(store.remove(&id(1)), Err(StoreError::Database(_))));
    store.remove(&id(2)).unwrap();
    store.remove(&id(1)).unwrap();
    // A fork of a parent that is gone cannot be recorded.
    assert!(store.insert(&record(3, "late", Some(id(1)))).is_err());
}

#[test]
fn rule_10_a_demote_beside_forks_leaves_no_fork_without_its_template() {
    let (_dir, store) = store();
    let mut stump = record(1, "stump", None);
    stump.template = true;
    store.insert(&stump).unwrap();
    std::thread::scope(|scope| {
        for n in 2..10_u8 {
            let store = &store;
            scope.spawn(move || {
                let fork = record(n, &format!("i{n}"), Some(id(1)));
                // Either is right: it was in time, or the template was gone.
                let _ = store.insert_forks(&id(1), must_be_template, vec![fork]);
            });
        }
        scope.spawn(|| {
            let _ = store.update_counted(&id(1), |record, forks| {
                admit(Operation::Demote, state_of(record.template), forks)?;
                record.template = false;
                Ok(())
            });
        });
    });
    let entry = store.instance(&id(1)).unwrap();
    assert!(
        entry.record.template || entry.live_forks == 0,
        "demoted with {} live forks",
        entry.live_forks
    );
}
