//! What must be refused.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::rig::Rig;
use super::subject::Place;
use crate::{RamUse, VmmError, Wake};

pub(super) async fn mismatch_refused(rig: &Rig<'_>) {
    let machine = rig.launch().await;
    let saved = rig.standby(machine).await;
    let (other, field) = rig.subject.other_driver().await;
    let plan = rig.restore_plan(&saved.image, RamUse::Fork, Wake::Running);
    let run_dir = plan.run_dir.clone();
    match other.restore(plan).await.err() {
        Some(VmmError::Mismatch { field: found, .. }) => assert_eq!(found, field),
        other => panic!("{other:?} instead of a mismatch of {field}"),
    }
    assert!(rig.driver.adopt(&run_dir).await.unwrap().is_none());
    let mut plan = rig.restore_plan(&saved.image, RamUse::Fork, Wake::Running);
    plan.root = plan.run_dir.join("other-root");
    fs::write(&plan.root, "another root file system").unwrap();
    match rig.driver.restore(plan).await.err() {
        Some(VmmError::Mismatch { field, .. }) => assert_eq!(field, "root_sha256"),
        other => panic!("{other:?} instead of a mismatch of the root file system"),
    }
}

pub(super) async fn damage_refused(rig: &Rig<'_>) {
    let machine = rig.launch().await;
    rig.put(&machine, Place::Disk, "word", "on disk").await;
    let saved = rig.standby(machine).await;
    let layer = &saved.image.manifest().layers[0].id;
    let top = saved.image.manifest().disks.len() - 1;
    let names = [
        "manifest.json".to_owned(),
        "state".into(),
        format!("disk-{top}"),
    ];
    let layer_names = [format!("ram-{layer}.idx"), format!("ram-{layer}.pages")];
    let damages: [(&str, Damage); 2] = [("a flipped bit", flip), ("a cut", cut)];
    let names = names.iter().chain(&layer_names);
    for (name, (what, damage)) in names.flat_map(|name| damages.map(|damage| (name, damage))) {
        // The copy is damaged in place of the image; a new driver remembers nothing about it.
        let driver = rig.subject.driver().await;
        let plan = rig.restore_plan(&saved.image, RamUse::Fork, Wake::Running);
        replace(&plan.image_dir, name, damage);
        let error = driver
            .restore(plan)
            .await
            .err()
            .unwrap_or_else(|| panic!("{what} of {name} went unnoticed"));
        match error {
            VmmError::Image(cause) => assert!(
                cause.to_string().contains(name.as_str()),
                "{cause} does not name {name}"
            ),
            other => panic!("{what} of {name}: {other:?}"),
        }
    }
    let plan = rig.restore_plan(&saved.image, RamUse::Fork, Wake::Running);
    fs::remove_file(plan.image_dir.join("manifest.json")).unwrap();
    let error = rig.driver.restore(plan).await.err();
    assert!(
        matches!(
            error,
            Some(VmmError::Image(memory::ImageError::NotComplete { .. }))
        ),
        "{error:?}"
    );
    // The image itself is as it was.
    let machine = rig.restore(&saved.image, RamUse::Fork).await;
    assert_eq!(rig.get(&machine, Place::Disk, "word").await, "on disk");
    machine.vm.kill().await.unwrap();
}

pub(super) type Damage = fn(&fs::File);

/// Replaces a file by a damaged copy; other links keep the good bytes.
pub(super) fn replace(dir: &Path, name: &str, damage: Damage) {
    let (path, copy): (PathBuf, PathBuf) = (dir.join(name), dir.join("copy"));
    memory::copy_sparse(&path, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().read(true).write(true).open(&copy);
    damage(&file.unwrap());
    fs::rename(&copy, &path).unwrap();
}

/// One bit in the middle is changed.
pub(super) fn flip(file: &fs::File) {
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], middle).unwrap();
}

/// The last byte is missing.
fn cut(file: &fs::File) {
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
}

pub(super) async fn failure_leaves_nothing(rig: &Rig<'_>) {
    let mut plan = rig.launch_plan();
    let run_dir = plan.run_dir.clone();
    if let Some(top) = plan.disk.last_mut() {
        top.path = run_dir.join("no-such-disk");
    }
    let error = rig
        .driver
        .launch(plan)
        .await
        .err()
        .expect("a machine without its disk was started");
    assert!(!error.to_string().is_empty());
    assert!(rig.driver.adopt(&run_dir).await.unwrap().is_none());
}
