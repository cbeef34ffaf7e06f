//! Databases of earlier versions must load for ever.

use super::super::{Found, Store, StoreError};
use super::{id, image, record, store};

/// A database as version 1 of the schema wrote it, as SQL. Never edited: if this test
/// fails, the new code cannot read what users have.
const VERSION_1: &str = include_str!("v1.sql");

#[test]
fn a_database_of_version_1_loads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("coppice.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(VERSION_1)
        .unwrap();
    let store = Store::open(&path).unwrap();
    let entries: Vec<_> = store
        .instances()
        .unwrap()
        .into_iter()
        .map(|entry| entry.unwrap())
        .collect();
    let names: Vec<&str> = entries
        .iter()
        .map(|entry| entry.record.name.as_str())
        .collect();
    assert_eq!(names, ["stump", "shoot-1"]);
    assert!(entries[0].record.template);
    assert_eq!(entries[0].live_forks, 1);
    assert_eq!(
        entries[1].record.parent.as_ref(),
        Some(&entries[0].record.id)
    );
    assert_eq!(
        store
            .image_named("docker.io/library/busybox:latest")
            .unwrap()
            .cmd,
        ["sh"]
    );
}

#[test]
fn a_database_of_the_future_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("coppice.db");
    drop(Store::open(&path).unwrap());
    rusqlite::Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    assert!(matches!(
        Store::open(&path),
        Err(StoreError::TooNew { found: 99, .. })
    ));
}

#[test]
fn look_up_goes_by_id_then_name_then_unique_prefix() {
    let (_dir, store) = store();
    let one = record(1, "one", None);
    let two = record(2, "two", None);
    store.insert(&one).unwrap();
    store.insert(&two).unwrap();
    // A name that is another instance's id: the id wins.
    let mut trap = record(3, "x", None);
    trap.name = one.id.as_str().parse().unwrap();
    store.insert(&trap).unwrap();
    assert_eq!(
        store.find(one.id.as_str()).unwrap(),
        Found::One(one.id.clone())
    );
    assert_eq!(store.find("two").unwrap(), Found::One(id(2)));
    assert_eq!(
        store.find(&two.id.as_str()[..20]).unwrap(),
        Found::One(id(2))
    );
    assert_eq!(store.find("zzzz").unwrap(), Found::Nothing);
    assert_eq!(store.find("").unwrap(), Found::Nothing);
    assert_eq!(store.find("' OR 1=1 --").unwrap(), Found::Nothing);
}

#[test]
fn an_image_in_use_stays_and_a_name_taken_is_refused() {
    let (_dir, store) = store();
    store.insert(&record(1, "one", None)).unwrap();
    assert!(matches!(
        store.insert(&record(2, "one", None)),
        Err(StoreError::NameTaken(_))
    ));
    assert!(matches!(
        store.remove_image_name("image"),
        Err(StoreError::ImageInUse(1))
    ));
    store.put_image(&image(), &["other".to_owned()]).unwrap();
    // Not its last name: the name goes, the image stays.
    assert_eq!(store.remove_image_name("image").unwrap(), None);
    store.remove(&id(1)).unwrap();
    assert_eq!(
        store.remove_image_name("other").unwrap().as_deref(),
        Some(super::DIGEST)
    );
    assert!(matches!(
        store.image(super::DIGEST),
        Err(StoreError::NotFound)
    ));
}
