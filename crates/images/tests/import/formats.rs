//! The kinds of archives there are, and choosing an image from them.

use std::fs;

use images::{Digest, ImportError, Limits, Platform};
use serde_json::{Value, json};

use crate::archive::{Archive, Layer, Packing, config, index};
use crate::disk::Host;

fn layers() -> Vec<Vec<u8>> {
    vec![
        Layer::new().file("a", "1").finish(),
        Layer::new().file("b", "2").finish(),
    ]
}

fn with_platform(mut descriptor: Value, os: &str, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": os, "architecture": architecture});
    descriptor
}

fn with_name(mut descriptor: Value, key: &str, name: &str) -> Value {
    descriptor["annotations"] = json!({key: name});
    descriptor
}

#[test]
fn every_packing_of_layers_gives_the_same_files() {
    let Some(host) = Host::new() else { return };
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let imported = host.import(&Archive::oci(&layers(), packing)).unwrap();
        assert_eq!(host.listing(&imported.digest).paths(), ["a", "b"]);
    }
    assert_eq!(host.store.digests().unwrap().len(), 3);
}

#[test]
fn the_archive_itself_may_be_compressed() {
    let Some(host) = Host::new() else { return };
    let archive = Archive::oci(&layers(), Packing::Gzip);
    let digests = [Packing::Plain, Packing::Gzip, Packing::Zstd].map(|packing| {
        let bytes = packing.pack(&archive.to_tar());
        let import = host
            .store
            .import(bytes.as_slice(), &Limits::default(), &mut |_| {});
        import.unwrap().digest
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
}

#[test]
fn the_config_says_how_to_run_the_image() {
    let Some(host) = Host::new() else { return };
    let mut config = config(&layers());
    config["config"] = json!({
        "Entrypoint": ["/bin/server"],
        "Cmd": ["--port", "80"],
        "Env": ["A=1", "B="],
        "WorkingDir": "/srv",
        "User": "app:1000",
        "StopSignal": "SIGQUIT",
        "Labels": {"k": "v"},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
    });
    let mut archive = Archive::default();
    let descriptor = archive.image(&layers(), Packing::Gzip, config);
    archive.index(&[descriptor]);
    let config = host.import(&archive).unwrap().config;
    assert_eq!(config.entrypoint, ["/bin/server"]);
    assert_eq!(config.cmd, ["--port", "80"]);
    assert_eq!(config.env, ["A=1", "B="]);
    assert_eq!(
        (config.working_dir.as_str(), config.user.as_str()),
        ("/srv", "app:1000")
    );
    assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(config.labels["k"], "v");
    assert_eq!(config.exposed_ports, ["53/udp", "80/tcp"]);
    assert_eq!(config.platform, Platform::default());
}

#[test]
fn of_several_platforms_ours_is_taken_at_any_depth() {
    let Some(host) = Host::new() else { return };
    let mut archive = Archive::default();
    let ours = archive.image(&layers(), Packing::Gzip, config(&layers()));
    let digest = ours["digest"].as_str().unwrap().to_owned();
    let mut other = config(&layers());
    other["architecture"] = json!("arm64");
    let other = archive.image(&layers(), Packing::Gzip, other);
    let inner = index(&[
        with_platform(other.clone(), "linux", "arm64"),
        with_platform(ours, "linux", "amd64"),
        with_platform(other, "unknown", "unknown"),
    ]);
    let kind = "application/vnd.oci.image.index.v1+json";
    let inner = archive.blob(kind, inner.to_string().as_bytes());
    let name = "org.opencontainers.image.ref.name";
    archive.index(&[with_name(inner, name, "demo:1")]);
    let imported = host.import(&archive).unwrap();
    assert_eq!(imported.digest.to_string(), digest);
    assert_eq!(imported.references, ["demo:1"]);
}

#[test]
fn an_image_for_other_platforms_only_is_refused_with_their_names() {
    let Some(host) = Host::new() else { return };
    let mut other = config(&layers());
    other["architecture"] = json!("arm64");
    for named_in_index in [true, false] {
        let mut archive = Archive::default();
        let mut descriptor = archive.image(&layers(), Packing::Gzip, other.clone());
        if named_in_index {
            descriptor = with_platform(descriptor, "linux", "arm64");
        }
        archive.index(&[descriptor]);
        let error = host.import(&archive).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no image for linux/amd64, only for linux/arm64"
        );
    }
}

#[test]
fn several_images_are_refused_and_several_names_of_one_are_not() {
    let Some(host) = Host::new() else { return };
    let name = "io.containerd.image.name";
    let mut archive = Archive::default();
    let one = archive.image(&layers(), Packing::Gzip, config(&layers()));
    let mut same = archive.clone();
    same.index(&[
        with_name(one.clone(), name, "b:1"),
        with_name(one.clone(), name, "a:1"),
    ]);
    assert_eq!(host.import(&same).unwrap().references, ["a:1", "b:1"]);

    let two = archive.image(&layers()[..1], Packing::Gzip, config(&layers()[..1]));
    archive.index(&[with_name(one, name, "a:1"), with_name(two, name, "b:1")]);
    let error = host.import(&archive).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the archive holds several images: a:1, b:1"
    );
}

/// What `docker save` wrote before it learned of OCI layouts.
fn saved() -> (Archive, Digest) {
    let layers = layers();
    let config = config(&layers).to_string();
    let config_digest = Digest::of(config.as_bytes());
    let mut archive = Archive::default();
    archive.add(&format!("{}.json", config_digest.hex()), config.as_bytes());
    archive.add("abc/layer.tar", &layers[0]);
    archive.add("def/layer.tar", &layers[1]);
    let list = json!([{
        "Config": format!("{}.json", config_digest.hex()),
        "RepoTags": ["demo:1", "demo:latest"],
        "Layers": ["abc/layer.tar", "def/layer.tar"],
    }]);
    archive.add("manifest.json", list.to_string().as_bytes());
    (archive, config_digest)
}

#[test]
fn docker_save_of_old_is_understood() {
    let Some(host) = Host::new() else { return };
    let (archive, config_digest) = saved();
    let imported = host.import(&archive).unwrap();
    let line = format!("docker-save config {config_digest}\n");
    assert_eq!(imported.digest, Digest::of(line.as_bytes()));
    assert_eq!(imported.references, ["demo:1", "demo:latest"]);
    assert_eq!(host.listing(&imported.digest).paths(), ["a", "b"]);
}

#[test]
fn docker_save_with_changed_content_is_refused() {
    let Some(host) = Host::new() else { return };
    for (at, place) in [(0, 20), (1, 512)] {
        let (mut archive, _) = saved();
        archive.parts[at].1[place] ^= 1;
        let error = host.import(&archive).unwrap_err();
        assert!(
            matches!(error, ImportError::DigestMismatch { .. }),
            "{error}"
        );
        host.assert_clean();
    }
}

#[test]
fn a_layout_directory_gives_the_same_image_as_its_archive() {
    let Some(host) = Host::new() else { return };
    let archive = Archive::oci(&layers(), Packing::Gzip);
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in &archive.parts {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let limits = Limits::default();
    let imported = host
        .store
        .import_layout(dir.path(), &limits, &mut |_| {})
        .unwrap();
    assert_eq!(imported.digest, host.import(&archive).unwrap().digest);

    // A blob that is a link to some other file of the host.
    let blob = dir.path().join(&archive.parts[0].0);
    fs::remove_file(&blob).unwrap();
    std::os::unix::fs::symlink(host.path("canary"), &blob).unwrap();
    host.store.remove(&imported.digest).unwrap();
    assert!(
        host.store
            .import_layout(dir.path(), &limits, &mut |_| {})
            .is_err()
    );
}

#[test]
fn what_is_no_image_is_refused_with_a_reason() {
    let Some(host) = Host::new() else { return };
    let mut incomplete = Archive::oci(&layers(), Packing::Gzip);
    let removed = incomplete.parts.remove(0).0;
    let mut malformed = Archive::default();
    malformed.add("index.json", b"{]");
    let mut short = Archive::default();
    let descriptor = short.image(&layers(), Packing::Gzip, config(&layers()[..1]));
    short.index(&[descriptor]);
    for (archive, text) in [
        (
            Archive::default(),
            "neither an OCI layout nor a docker-save archive",
        ),
        (incomplete, removed.as_str()),
        (malformed, "index.json is malformed"),
        (short, "2 layers, but 1 in the config"),
    ] {
        let error = host.import(&archive).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        host.assert_clean();
    }
    let error = host
        .store
        .import(b"text".as_slice(), &Limits::default(), &mut |_| {});
    assert!(error.is_err());
}
