//! Files: uploads, downloads, descriptions.

use guest::{
    DownloadItem, EntryKind, FailureKind, Link, LinkError, Owner, PathInfo, PathKind, UploadKind,
    UploadSpec,
};

use crate::support::{Target, refused};

conformance! {
    files_make_the_round_trip
    uploads_replace_only_what_they_may
    an_unfinished_upload_leaves_nothing
    paths_are_described
}

async fn files_make_the_round_trip(mut target: Target) {
    let link = target.started().await;
    let big: Vec<u8> = (0..700_000_u32)
        .map(|number| (number % 253) as u8)
        .collect();
    let top = target.path("tree");
    // Tests need not be root, so files are given to whoever owns the directory already.
    let owner = Some(Owner::default()).filter(|_| rustix_is_root());
    let file = UploadSpec {
        mode: Some(0o640),
        owner,
        mtime: Some(1_000_000_007),
        ..upload(&format!("{top}/deep/big"), UploadKind::File)
    };
    assert_eq!(put(&link, file, &big).await.unwrap(), big.len() as u64);
    assert_eq!(
        put(
            &link,
            upload(&format!("{top}/empty"), UploadKind::File),
            b""
        )
        .await
        .unwrap(),
        0
    );
    let directory = UploadSpec {
        mode: Some(0o711),
        ..upload(&format!("{top}/dir"), UploadKind::Directory)
    };
    assert_eq!(put(&link, directory, b"").await.unwrap(), 0);
    let symlink = upload(
        &format!("{top}/link"),
        UploadKind::Symlink {
            target: "deep/big".into(),
        },
    );
    assert_eq!(put(&link, symlink, b"").await.unwrap(), 0);

    let mut entries = download(&link, &top, false).await;
    assert_eq!(entries[0].0.path, "tree", "parents come first");
    entries.sort_by(|one, other| one.0.path.cmp(&other.0.path));
    let shape: Vec<(&str, EntryKind, u32)> = entries
        .iter()
        .map(|(header, _)| (header.path.as_str(), header.kind.clone(), header.mode))
        .collect();
    let file = |size| EntryKind::File { size };
    assert_eq!(
        shape,
        [
            ("tree", EntryKind::Directory, 0o755),
            ("tree/deep", EntryKind::Directory, 0o755),
            ("tree/deep/big", file(big.len() as u64), 0o640),
            ("tree/dir", EntryKind::Directory, 0o711),
            ("tree/empty", file(0), 0o644),
            (
                "tree/link",
                EntryKind::Symlink {
                    target: "deep/big".into()
                },
                0o777
            ),
        ]
    );
    assert!(entries[2].1 == big && entries[2].0.mtime == 1_000_000_007);
    let followed = download(&link, &format!("{top}/link"), true).await;
    assert!(followed.len() == 1 && followed[0].0.path == "link" && followed[0].1 == big);
}

async fn uploads_replace_only_what_they_may(mut target: Target) {
    let link = target.started().await;
    let (file, directory) = (target.path("file"), target.path("directory"));
    put(
        &link,
        UploadSpec {
            mode: Some(0o600),
            ..upload(&file, UploadKind::File)
        },
        b"old",
    )
    .await
    .unwrap();
    put(&link, upload(&directory, UploadKind::Directory), b"")
        .await
        .unwrap();
    put(&link, upload(&directory, UploadKind::Directory), b"")
        .await
        .unwrap();

    let error = put(&link, upload(&directory, UploadKind::File), b"x")
        .await
        .unwrap_err();
    refused(error, FailureKind::IsDirectory);
    let error = put(&link, upload(&file, UploadKind::Directory), b"")
        .await
        .unwrap_err();
    refused(error, FailureKind::NotDirectory);
    let error = put(
        &link,
        upload(&format!("{file}/below"), UploadKind::File),
        b"x",
    )
    .await
    .unwrap_err();
    refused(error, FailureKind::NotDirectory);
    let error = put(&link, upload("relative", UploadKind::File), b"x")
        .await
        .unwrap_err();
    refused(error, FailureKind::Invalid);

    put(&link, upload(&file, UploadKind::File), b"new")
        .await
        .unwrap();
    let entries = download(&link, &file, false).await;
    assert!(
        entries[0].1 == b"new" && entries[0].0.mode == 0o600,
        "the mode of what was replaced stays: {entries:?}"
    );
}

async fn an_unfinished_upload_leaves_nothing(mut target: Target) {
    let link = target.started().await;
    let path = target.path("kept");
    put(&link, upload(&path, UploadKind::File), b"kept")
        .await
        .unwrap();
    let mut broken = link.upload(upload(&path, UploadKind::File)).await.unwrap();
    broken.write("half").await.unwrap();
    drop(broken);
    let entries = download(&link, &target.path(""), false).await;
    let files: Vec<&[u8]> = entries
        .iter()
        .filter(|(header, _)| header.kind != EntryKind::Directory)
        .map(|(_, content)| &content[..])
        .collect();
    assert_eq!(files, [b"kept"]);
}

async fn paths_are_described(mut target: Target) {
    let link = target.started().await;
    let (file, symlink) = (target.path("file"), target.path("link"));
    put(
        &link,
        UploadSpec {
            mode: Some(0o4750),
            ..upload(&file, UploadKind::File)
        },
        b"four",
    )
    .await
    .unwrap();
    put(
        &link,
        upload(
            &symlink,
            UploadKind::Symlink {
                target: file.clone(),
            },
        ),
        b"",
    )
    .await
    .unwrap();
    let facts = |info| match info {
        PathInfo::Found(facts) => facts,
        other => panic!("{other:?}"),
    };
    let described = facts(link.stat(&file, false).await.unwrap());
    assert_eq!(
        (described.kind, described.mode, described.size),
        (PathKind::File, 0o4750, 4)
    );
    let described = facts(link.stat(&symlink, false).await.unwrap());
    assert_eq!(
        (described.kind, described.link_target),
        (PathKind::Symlink, Some(file.clone()))
    );
    assert_eq!(
        facts(link.stat(&symlink, true).await.unwrap()).kind,
        PathKind::File
    );
    assert_eq!(
        facts(link.stat("/", false).await.unwrap()).kind,
        PathKind::Directory
    );
    assert_eq!(
        link.stat(target.path("missing"), false).await.unwrap(),
        PathInfo::Missing
    );
    refused(
        link.stat("relative", false).await.unwrap_err(),
        FailureKind::Invalid,
    );
}

fn upload(path: &str, kind: UploadKind) -> UploadSpec {
    UploadSpec {
        path: path.to_owned(),
        kind,
        mode: None,
        owner: None,
        mtime: None,
    }
}

async fn put(link: &Link, spec: UploadSpec, content: &[u8]) -> Result<u64, LinkError> {
    let mut upload = link.upload(spec).await?;
    upload.write(content.to_vec()).await?;
    upload.finish().await
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self")
        .is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

async fn download(link: &Link, path: &str, follow: bool) -> Vec<(guest::EntryHeader, Vec<u8>)> {
    let mut download = link.download(path, follow).await.unwrap();
    let mut entries = Vec::new();
    let mut ended = None;
    while let Some(item) = download.next().await.unwrap() {
        assert_ne!(ended, Some(true), "nothing follows the last end");
        match item {
            DownloadItem::Entry(header) => entries.push((header, Vec::new())),
            DownloadItem::Data(bytes) => entries.last_mut().unwrap().1.extend_from_slice(&bytes),
            DownloadItem::End { last } => ended = Some(last),
        }
    }
    assert_eq!(ended, Some(true));
    entries
}
