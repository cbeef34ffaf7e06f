//! The exec websocket, frame by frame as public clients speak it.

use api::client::ExecEvent;
use api::exec::ExecStart;
use e2e::{Daemon, Frame};
use serde_json::{Value, json};

async fn begin(daemon: &Daemon, start: Value) -> e2e::Socket {
    daemon.open_socket("/instances/a/exec", start).await
}

fn exit(code: i32) -> Value {
    json!({ "exitCode": code })
}

#[tokio::test]
async fn exec_merges_output_and_ends_with_one_text_frame() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let mut create = e2e::plain_create("a");
    create["env"] = json!({"FROM": "instance"});
    daemon.boot_as(create).await;

    let line = "echo out; echo err >&2; echo $FROM $GIVEN; pwd; exit 3";
    let start = json!({"command": ["/bin/sh", "-c", line], "tty": false, "env": {"GIVEN": "here"}, "cwd": "/proc"});
    let mut socket = begin(&daemon, start).await;
    let (bytes, last) = socket.read_to_text().await;
    // The two come through pipes of their own: each keeps its order, and either may be first.
    let text = String::from_utf8_lossy(&bytes);
    let (err, out): (Vec<_>, Vec<_>) = text.lines().partition(|line| *line == "err");
    assert_eq!(
        (out, err.len()),
        (vec!["out", "instance here", "/proc"], 1),
        "{text:?}"
    );
    assert_eq!(last, exit(3));
    assert_eq!(socket.next().await, Frame::Closed);

    for (command, code) in [
        (json!(["/bin/true"]), 0),
        (json!(["/bin/sh", "-c", "kill -9 $$"]), 137),
        (json!(["/bin/sh", "-c", "kill -TERM $$"]), 143),
    ] {
        let mut socket = begin(&daemon, json!({"command": command, "tty": false})).await;
        assert_eq!(
            socket.read_to_text().await,
            (Vec::new(), exit(code)),
            "{command}"
        );
    }

    // What cannot be started: bytes for people, then the shells' code for it.
    let mut socket = begin(&daemon, json!({"command": ["/no/such"], "tty": false})).await;
    let (bytes, last) = socket.read_to_text().await;
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("/no/such"), "{text:?}");
    assert_eq!(last, exit(127));

    // A command of nothing is a shell.
    let mut socket = begin(&daemon, json!({"command": [], "tty": false})).await;
    socket.binary(b"echo shell $((6 * 7)); exit 4\n").await;
    assert_eq!(
        socket.read_to_text().await,
        (b"shell 42\n".to_vec(), exit(4))
    );

    let mut socket = begin(
        &daemon,
        json!({"command": ["/bin/sleep", "60"], "timeout": 1}),
    )
    .await;
    assert_eq!(socket.read_to_text().await.1, exit(124));
}

#[tokio::test]
async fn exec_takes_input_as_bytes_and_as_text_and_large_output() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    let line = "read one; read two; echo \"$one/$two\"";
    let mut socket = begin(&daemon, json!({"command": ["/bin/sh", "-c", line]})).await;
    socket.binary(b"bytes\n").await;
    // Without a terminal even this is input.
    socket.text("{\"resize\":{\"rows\":1,\"cols\":1}}\n").await;
    let (bytes, last) = socket.read_to_text().await;
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(
        (text.as_ref(), last),
        ("bytes/{\"resize\":{\"rows\":1,\"cols\":1}}\n", exit(0))
    );

    let command = json!([
        "/bin/dd",
        "if=/dev/zero",
        "bs=64k",
        "count=64",
        "status=none"
    ]);
    let mut socket = begin(&daemon, json!({"command": command})).await;
    let (bytes, last) = socket.read_to_text().await;
    assert_eq!((bytes.len(), last), (4 << 20, exit(0)));
    assert!(bytes.iter().all(|byte| *byte == 0));

    // Both ways at once, more than any buffer on the way holds.
    let start = ExecStart {
        command: vec![
            "/bin/head".to_owned(),
            "-c".to_owned(),
            "2097152".to_owned(),
        ],
        ..ExecStart::default()
    };
    let session = daemon.client().exec("a", &start).await.expect("it begins");
    let (mut input, mut output) = (session.input, session.output);
    let send = async {
        for _ in 0..64 {
            input.write(&[7; 32 << 10]).await.expect("taken");
        }
    };
    let receive = async {
        let mut count = 0;
        loop {
            match output.next().await.expect("output") {
                ExecEvent::Stdout(bytes) => count += bytes.len(),
                ExecEvent::Exit(code) => return (count, code),
                ExecEvent::Stderr(bytes) => panic!("{bytes:?}"),
            }
        }
    };
    let ((), received) = tokio::join!(send, receive);
    assert_eq!(received, (2 << 20, 0));
}

#[tokio::test]
async fn exec_with_a_terminal_has_its_size_and_follows_it() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    let script = "stty size; tty; read x; stty size; read y; echo got:$y";
    let start = json!({"command": ["/bin/sh", "-c", script], "tty": true, "rows": 30, "cols": 100});
    let mut socket = begin(&daemon, start).await;
    let text = socket.read_until("/dev/pts").await;
    assert!(text.contains("30 100\r\n"), "{text:?}");
    socket.text(r#"{"resize":{"rows":41,"cols":123}}"#).await;
    socket.binary(b"\n").await;
    socket.read_until("41 123\r\n").await;
    // Any other text is input, also with a terminal.
    socket.text("words\n").await;
    let (bytes, last) = socket.read_to_text().await;
    assert!(
        String::from_utf8_lossy(&bytes).contains("got:words"),
        "{bytes:?}"
    );
    assert_eq!(last, exit(0));

    let mut socket = begin(&daemon, json!({"command": ["stty", "size"], "tty": true})).await;
    let (bytes, _) = socket.read_to_text().await;
    assert_eq!(String::from_utf8_lossy(&bytes), "24 80\r\n");

    // The interrupt key is a byte like any other; the terminal makes it a signal.
    let mut socket = begin(
        &daemon,
        json!({"command": ["/bin/sh", "-c", "echo up; sleep 60"], "tty": true}),
    )
    .await;
    socket.read_until("up").await;
    socket.binary(&[3]).await;
    assert_eq!(socket.read_to_text().await.1, exit(130));
}

#[tokio::test]
async fn exec_is_killed_when_the_client_leaves() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    // By its path, so that it is a process of its own and not a part of the shell.
    let line = "echo up; /bin/sleep 1000; true";
    let sleepers = "cat /proc/[0-9]*/comm | grep -cx sleep || true";
    let mut socket = begin(&daemon, json!({"command": ["/bin/sh", "-c", line]})).await;
    socket.read_until("up").await;
    e2e::until("the command's child to start", async || {
        (daemon.sh("a", sleepers).await == "1").then_some(())
    })
    .await;
    socket.drop_connection();
    e2e::until("the command and its children to end", async || {
        (daemon.sh("a", sleepers).await == "0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn exec_refuses_a_first_frame_that_it_cannot_read() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    for (first, named) in [
        (json!({"command": "ls"}), "command"),
        (json!({"command": ["ls"], "colour": true}), "colour"),
        (json!([1]), ""),
    ] {
        let mut socket = begin(&daemon, first.clone()).await;
        let Frame::Text(answer) = socket.next().await else {
            panic!("{first} was taken");
        };
        assert!(
            answer["error"]
                .as_str()
                .is_some_and(|text| text.contains(named)),
            "{answer}"
        );
        assert_eq!(socket.next().await, Frame::Closed);
    }
    daemon
        .knock("/instances/nobody/exec")
        .await
        .refused(404, "not_found");
    daemon.get("/instances/a/exec").await.expect(400);
}
