//! Rows of instances: what they need, who may read them, when their time comes.

use std::os::unix::fs::PermissionsExt as _;

use model::UnixMillis;

use super::super::StoreError;
use super::{id, record, store};

#[test]
fn an_instance_of_an_image_that_has_just_gone_is_refused() {
    let (_dir, store) = store();
    store.remove_image_name("image").unwrap();
    let refused = store.insert(&record(1, "late", None)).unwrap_err();
    assert!(matches!(refused, StoreError::ImageGone(_)), "{refused:?}");
}

#[test]
fn records_are_for_their_owner_alone() {
    let (dir, store) = store();
    store.insert(&record(1, "a", None)).unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.file_name());
        seen += 1;
    }
    assert!(seen > 1, "the write-ahead log lies beside the database");
}

#[test]
fn the_time_of_a_locked_template_comes_after_its_forks() {
    let (_dir, store) = store();
    let mut template = record(1, "template", None);
    template.template = true;
    template.expires_at = Some(UnixMillis(5));
    store.insert(&template).unwrap();
    store.insert(&record(2, "fork", Some(id(1)))).unwrap();
    assert!(store.expired(UnixMillis(9)).unwrap().is_empty());
    store.remove(&id(2)).unwrap();
    assert!(store.expired(UnixMillis(4)).unwrap().is_empty());
    assert_eq!(store.expired(UnixMillis(9)).unwrap(), [id(1)]);
}
