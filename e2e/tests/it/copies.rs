//! The cp websocket, frame by frame as public clients speak it, and stat.

use e2e::{Daemon, Frame, Socket};
use serde_json::{Value, json};

async fn begin(daemon: &Daemon, start: Value) -> Socket {
    daemon.open_socket("/instances/a/cp", start).await
}

/// An upload of a file with the mode that files get by default.
fn to(path: &str) -> Value {
    json!({"direction": "to", "guest_path": path, "is_dir": false, "mode": 0})
}

/// A download.
fn from(path: &str, follow: bool) -> Value {
    json!({"direction": "from", "guest_path": path, "follow_links": follow})
}

/// Uploads one entry and gives the server's only frame.
async fn upload(daemon: &Daemon, start: Value, chunks: &[&[u8]]) -> Value {
    let mut socket = begin(daemon, start).await;
    for chunk in chunks {
        socket.binary(chunk).await;
    }
    socket.text(r#"{"type":"end"}"#).await;
    match socket.next().await {
        Frame::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

/// An entry of a download.
struct Entry {
    header: Value,
    data: Vec<u8>,
}

/// Downloads a tree and checks the order of the frames.
async fn download(daemon: &Daemon, start: Value) -> Vec<Entry> {
    let mut socket = begin(daemon, start).await;
    let mut entries = Vec::new();
    loop {
        let Frame::Text(header) = socket.next().await else {
            panic!("an entry begins with its header");
        };
        assert_eq!(header["type"], "header", "{header}");
        let (data, end) = socket.read_to_text().await;
        assert_eq!(end["type"], "end", "{end}");
        let last = end["final"].as_bool().expect("a boolean");
        entries.push(Entry { header, data });
        if last {
            assert_eq!(socket.next().await, Frame::Closed);
            return entries;
        }
    }
}

#[tokio::test]
async fn cp_to_a_guest() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;

    let answer = upload(&daemon, to("/srv/deep/er/file"), &[b"hello ", b"world"]).await;
    assert_eq!(
        answer,
        json!({"type": "result", "success": true, "bytes_written": 11})
    );
    let seen = daemon
        .sh(
            "a",
            "cat /srv/deep/er/file; echo; stat -c %a:%u:%g /srv/deep/er/file /srv/deep",
        )
        .await;
    assert_eq!(seen, "hello world\n644:0:0\n755:0:0");

    let empty = upload(&daemon, to("/srv/empty"), &[]).await;
    assert_eq!(
        empty,
        json!({"type": "result", "success": true}),
        "0 is left out"
    );

    let mut owned = to("/srv/owned");
    owned["mode"] = json!(0o4750);
    owned["uid"] = json!(12);
    owned["gid"] = json!(34);
    upload(&daemon, owned, &[b"x"]).await;
    assert_eq!(
        daemon.sh("a", "stat -c %a:%u:%g /srv/owned").await,
        "4750:12:34"
    );

    let directory =
        json!({"direction": "to", "guest_path": "/srv/dir", "is_dir": true, "mode": 0o700});
    assert_eq!(
        upload(&daemon, directory.clone(), &[]).await,
        json!({"type": "result", "success": true})
    );
    assert_eq!(
        upload(&daemon, directory, &[]).await["success"],
        true,
        "it may be there already"
    );
    assert_eq!(
        daemon.sh("a", "stat -c %a:%F /srv/dir").await,
        "700:directory"
    );
}

#[tokio::test]
async fn cp_replaces_refuses_and_takes_large_files() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    daemon
        .sh(
            "a",
            "mkdir -p /srv/dir /srv/deep/er; echo longer > /srv/deep/er/file; : > /srv/empty",
        )
        .await;

    // A shorter file leaves nothing of the longer one before it.
    upload(&daemon, to("/srv/deep/er/file"), &[b"short"]).await;
    assert_eq!(daemon.sh("a", "cat /srv/deep/er/file").await, "short");

    for start in [
        to("/srv/dir"),
        json!({"direction": "to", "guest_path": "/srv/empty", "is_dir": true}),
        to("/srv/empty/below"),
    ] {
        let answer = upload(&daemon, start.clone(), &[b"x"]).await;
        assert_eq!(answer["success"], false, "{start}");
        assert!(
            answer["error"].as_str().is_some_and(|why| !why.is_empty()),
            "{answer}"
        );
    }

    let chunk = vec![0x5a_u8; 32 << 10];
    let chunks: Vec<&[u8]> = (0..96).map(|_| chunk.as_slice()).collect();
    let answer = upload(&daemon, to("/dev/shm/large"), &chunks).await;
    assert_eq!(answer["bytes_written"], 3 << 20);
    assert_eq!(
        daemon
            .sh(
                "a",
                "tr -d Z < /dev/shm/large | wc -c; wc -c < /dev/shm/large"
            )
            .await,
        "0\n3145728"
    );
}

#[tokio::test]
async fn cp_from_a_guest() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    let tree = "mkdir -p /srv/t/sub/empty && cd /srv/t && echo hi > file && : > nothing && chmod 4711 file && \
                ln -s file link && ln -s missing dangling && ln -s sub dirlink && \
                dd if=/dev/zero of=sub/large bs=64k count=40 status=none && chown 5:6 nothing";
    daemon.sh("a", tree).await;

    let entries = download(&daemon, from("/srv/t", false)).await;
    let mut paths: Vec<&str> = entries
        .iter()
        .map(|entry| entry.header["path"].as_str().expect("a path"))
        .collect();
    for (at, path) in paths.iter().enumerate() {
        if let Some((parent, _)) = path.rsplit_once('/') {
            assert!(paths[..at].contains(&parent), "{parent} before {path}");
        }
    }
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "t",
            "t/dangling",
            "t/dirlink",
            "t/file",
            "t/link",
            "t/nothing",
            "t/sub",
            "t/sub/empty",
            "t/sub/large"
        ]
    );
    let file = find(&entries, "t/file");
    assert_eq!(file.data, b"hi\n");
    assert_eq!(
        (
            &file.header["size"],
            &file.header["mode"],
            &file.header["is_dir"]
        ),
        (&json!(3), &json!(0o711), &json!(false))
    );
    assert!(
        file.header["mtime"]
            .as_u64()
            .is_some_and(|mtime| mtime > 1_700_000_000),
        "{}",
        file.header
    );
    let large = find(&entries, "t/sub/large");
    assert_eq!(
        (large.data.len(), &large.header["size"]),
        (40 << 16, &json!(40 << 16))
    );
    assert_eq!(find(&entries, "t/nothing").data, b"");
    assert_eq!(
        (
            &find(&entries, "t/nothing").header["uid"],
            &find(&entries, "t/nothing").header["gid"]
        ),
        (&json!(5), &json!(6))
    );
    links_and_directories(&entries);
    single_files(&daemon).await;
}

fn find<'e>(entries: &'e [Entry], path: &str) -> &'e Entry {
    entries
        .iter()
        .find(|entry| entry.header["path"] == path)
        .expect("an entry")
}

fn links_and_directories(entries: &[Entry]) {
    for (path, target) in [
        ("t/link", "file"),
        ("t/dangling", "missing"),
        ("t/dirlink", "sub"),
    ] {
        let header = &find(entries, path).header;
        assert_eq!(
            (&header["is_symlink"], &header["link_target"]),
            (&json!(true), &json!(target))
        );
        assert_eq!(header["is_dir"], false);
        assert!(find(entries, path).data.is_empty());
    }
    for path in ["t", "t/sub", "t/sub/empty"] {
        assert_eq!(find(entries, path).header["is_dir"], true);
        assert!(find(entries, path).data.is_empty());
    }
}

async fn single_files(daemon: &Daemon) {
    let one = download(daemon, from("/srv/t/file", false)).await;
    assert_eq!((one.len(), &one[0].header["path"]), (1, &json!("file")));
    let followed = download(daemon, from("/srv/t/link", true)).await;
    assert_eq!(
        (followed[0].data.as_slice(), &followed[0].header["path"]),
        (b"hi\n".as_slice(), &json!("link"))
    );

    let mut socket = begin(daemon, from("/srv/none", false)).await;
    let Frame::Text(answer) = socket.next().await else {
        panic!("no answer")
    };
    assert_eq!(answer["type"], "error", "{answer}");
    assert!(
        answer["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
}

#[tokio::test]
async fn stat_says_what_is_there() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    daemon
        .sh(
            "a",
            "echo hello > /srv/file; chmod 640 /srv/file; ln -s file /srv/link; mkdir /srv/dir",
        )
        .await;
    let stat = async |path: &str, follow: bool| {
        let query = format!("/instances/a/stat?path={path}&follow_links={follow}");
        let over_http = daemon.get(&query).await.expect(200);
        let start = json!({"direction": "stat", "guest_path": path, "follow_links": follow});
        let Frame::Text(mut over_socket) = begin(&daemon, start).await.next().await else {
            panic!("no answer");
        };
        assert_eq!(over_socket["type"], "stat");
        over_socket
            .as_object_mut()
            .map(|object| object.remove("type"));
        assert_eq!(over_socket, over_http);
        over_http
    };
    let file = stat("/srv/file", false).await;
    assert_eq!(
        (
            &file["exists"],
            &file["is_file"],
            &file["size"],
            &file["mode"]
        ),
        (&json!(true), &json!(true), &json!(6), &json!(0o640))
    );
    let link = stat("/srv/link", false).await;
    assert_eq!(
        (&link["is_symlink"], &link["link_target"]),
        (&json!(true), &json!("file"))
    );
    assert_eq!(stat("/srv/link", true).await["is_file"], true);
    assert_eq!(stat("/srv/dir", false).await["is_dir"], true);
    assert_eq!(stat("/srv/none", false).await, json!({"exists": false}));
    let missing = daemon.get("/instances/a/stat").await;
    assert!(missing.refused(400, "Bad Request").contains("path"));
}
