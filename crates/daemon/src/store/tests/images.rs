//! Images: what keeps one, and what lets it go.

use super::super::{Store, StoreError};
use super::{DIGEST, id, image_of, record, store};

const NEWER: &str = "sha256:bb";

fn digests(store: &Store) -> Vec<String> {
    let mut digests = store.image_digests().unwrap();
    digests.sort();
    digests
}

fn names(store: &Store) -> Vec<String> {
    let images = store.images().unwrap();
    images.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_name_that_moves_on_takes_an_unused_image_away() {
    let (_dir, store) = store();
    let gone = store.put_image(&image_of(NEWER), &["image".to_owned()]);
    assert_eq!(gone.unwrap(), [DIGEST]);
    assert_eq!(digests(&store), [NEWER]);
    assert_eq!(store.image_named("image").unwrap().digest, NEWER);
}

#[test]
fn an_image_without_a_name_is_kept_and_shown_while_it_is_used() {
    let (_dir, store) = store();
    store.insert(&record(1, "user", None)).unwrap();
    let gone = store.put_image(&image_of(NEWER), &["image".to_owned()]);
    assert!(gone.unwrap().is_empty());
    assert_eq!(names(&store), ["image", DIGEST]);
    assert!(matches!(
        store.remove_image(DIGEST),
        Err(StoreError::ImageInUse(1))
    ));
    store.remove(&id(1)).unwrap();
    assert_eq!(store.drop_nameless_images().unwrap(), [DIGEST]);
    assert_eq!(names(&store), ["image"]);
}

#[test]
fn removing_by_digest_takes_all_names() {
    let (_dir, store) = store();
    let also = ["also".to_owned()];
    store.put_image(&image_of(DIGEST), &also).unwrap();
    assert_eq!(names(&store), ["also", "image"]);
    store.remove_image(DIGEST).unwrap();
    assert!(names(&store).is_empty());
    assert!(matches!(
        store.image_named("image"),
        Err(StoreError::NotFound)
    ));
    assert!(matches!(
        store.remove_image(DIGEST),
        Err(StoreError::NotFound)
    ));
}
