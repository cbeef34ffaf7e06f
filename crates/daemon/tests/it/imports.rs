//! Imports to their end, with the real store of root disks.

use std::sync::Arc;
use std::time::Duration;

use ::images::ImageStore;
use daemon::images::Images;
use daemon::store::Store;
use model::UnixMillis;
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt as _, DuplexStream};

/// Longest that an import of nothing may take, however busy the host is.
const PATIENCE: Duration = Duration::from_secs(60);

struct Library {
    _dir: TempDir,
    roots: Arc<ImageStore>,
    images: Images,
}

impl Library {
    /// None where images cannot be imported.
    async fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: importing images needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("coppice.db")).unwrap());
        let roots = Arc::new(ImageStore::open(&dir.path().join("images")).unwrap());
        let images = Images::open(store, Arc::clone(&roots), || UnixMillis(0));
        Some(Self {
            _dir: dir,
            images: images.await.unwrap(),
            roots,
        })
    }

    async fn until_recorded(&self, name: &str) {
        let found = async {
            while self.images.resolve(name).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap();
    }
}

/// An image without layers, as `docker save` writes it.
fn archive(name: Option<&str>) -> Vec<u8> {
    let config = r#"{"architecture":"amd64","os":"linux","config":{},
        "rootfs":{"type":"layers","diff_ids":[]}}"#;
    let names: Vec<&str> = name.into_iter().collect();
    let manifest = serde_json::json!([
        { "Config": "config.json", "RepoTags": names, "Layers": [] },
    ])
    .to_string();
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in [("config.json", config), ("manifest.json", &manifest)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// An upload whose bytes are still to come.
fn upload() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 << 10)
}

#[tokio::test]
async fn an_import_ends_well_when_its_client_hangs_up_after_the_last_byte() {
    let Some(library) = Library::new().await else {
        return;
    };
    let (mut client, server) = upload();
    let mut request = Box::pin(library.images.import(server, None));
    assert!(futures::poll!(&mut request).is_pending());
    drop(request);
    client.write_all(&archive(Some("late:1"))).await.unwrap();
    drop(client);
    library.until_recorded("late:1").await;
    let found = library.images.resolve("late:1").await.unwrap();
    let digest = found.digest.parse().unwrap();
    assert!(library.roots.rootfs(&digest).is_some());
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let Some(library) = Library::new().await else {
        return;
    };
    let (mut client, server) = upload();
    let archive = archive(Some("half:1"));
    client
        .write_all(&archive[..archive.len() / 3])
        .await
        .unwrap();
    drop(client);
    library.images.import(server, None).await.unwrap_err();
    assert!(library.images.list().await.unwrap().is_empty());
    assert!(library.roots.digests().unwrap().is_empty());
}

#[tokio::test]
async fn an_image_that_nobody_names_is_refused_and_leaves_nothing() {
    let Some(library) = Library::new().await else {
        return;
    };
    let import = |name: Option<&str>| {
        let archive = std::io::Cursor::new(archive(None));
        library.images.import(archive, name.map(str::to_owned))
    };
    let refused = import(None).await.unwrap_err().to_string();
    assert!(refused.contains("--name"), "{refused}");
    assert!(library.roots.digests().unwrap().is_empty());
    // One that is there already is not harmed by it.
    import(Some("named:1")).await.unwrap();
    import(None).await.unwrap_err();
    assert_eq!(library.roots.digests().unwrap().len(), 1);
    library.images.resolve("named:1").await.unwrap();
}

#[tokio::test]
async fn an_image_that_is_removed_beside_its_import_is_whole_or_gone() {
    let Some(library) = Library::new().await else {
        return;
    };
    for _ in 0..8 {
        let archive = archive(Some("busy:1"));
        let import = library.images.import(std::io::Cursor::new(archive), None);
        let (imported, _) = tokio::join!(import, library.images.remove("busy:1"));
        let disks = library.roots.digests().unwrap();
        match library.images.resolve("busy:1").await {
            Ok(image) => assert_eq!(disks, [image.digest.parse().unwrap()]),
            Err(_) => assert!(disks.is_empty(), "{imported:?}"),
        }
    }
}
