//! One or more samples of each message.

use protocol::*;

/// Every message of the host.
#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn to_guest() -> Vec<ToGuest> {
    let network = GuestNetwork {
        address: [10, 0, 0, 2].into(),
        prefix: 30,
        gateway: [10, 0, 0, 1].into(),
        mtu: 1500,
        dns: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        search: vec!["internal".into()],
    };
    let identity = Identity {
        instance_id: "i2".into(),
        hostname: "web-2".into(),
        machine_id: [2; 16],
        entropy: vec![9; MIN_ENTROPY],
        wall_clock_ns: 1_700_000_000_000_000_002,
        new_machine: true,
        post_fork: Some(PostFork {
            argv: vec!["/hook".into()],
            env: vec![("K".into(), "V".into())],
            timeout_ms: 10_000,
        }),
        network: Some(network.clone()),
    };
    let spec = StartSpec {
        instance_id: "i1".into(),
        hostname: "web-1".into(),
        machine_id: [1; 16],
        entropy: vec![7; MIN_ENTROPY],
        wall_clock_ns: 1_700_000_000_000_000_001,
        argv: vec!["/bin/server".into(), "--fast".into()],
        env: vec![("A".into(), "1".into())],
        workdir: "/srv".into(),
        user: "web:www".into(),
        stop_signal: 15,
        network: Some(network),
    };
    let exec = ExecSpec {
        argv: vec!["ls".into()],
        env: vec![("B".into(), "2".into())],
        cwd: Some("/tmp".into()),
        user: Some("root".into()),
        tty: Some(TerminalSize::default()),
        timeout_ms: Some(1500),
    };
    let upload = |kind| UploadSpec {
        path: "/etc/x".into(),
        kind,
        mode: Some(0o640),
        owner: Some(Owner { uid: 1, gid: 2 }),
        mtime: Some(-5),
    };
    vec![
        ToGuest::Hello(Hello {
            nonce: u64::MAX,
            version_min: 2,
            version_max: 3,
        }),
        ToGuest::Start {
            call: 1,
            spec: Box::new(spec),
        },
        ToGuest::Resume {
            call: 2,
            nonce: 77,
            identity: Box::new(identity),
        },
        ToGuest::Quiesce { call: 3 },
        ToGuest::Stat {
            call: 4,
            path: "/etc".into(),
            follow: true,
        },
        ToGuest::Exec {
            call: 5,
            spec: Box::new(exec),
        },
        ToGuest::Upload {
            call: 6,
            spec: Box::new(upload(UploadKind::File)),
        },
        ToGuest::Upload {
            call: 7,
            spec: Box::new(upload(UploadKind::Directory)),
        },
        ToGuest::Upload {
            call: 8,
            spec: Box::new(upload(UploadKind::Symlink {
                target: "../y".into(),
            })),
        },
        ToGuest::Download {
            call: 9,
            path: "/var".into(),
            follow: false,
        },
        ToGuest::Data {
            call: 10,
            bytes: vec![0, 1, 0, 255],
        },
        ToGuest::Eof { call: 11 },
        ToGuest::Resize {
            call: 12,
            size: TerminalSize {
                rows: 50,
                cols: 132,
            },
        },
        ToGuest::Signal {
            call: 13,
            signal: 2,
        },
        ToGuest::Cancel { call: 14 },
        ToGuest::Credit {
            call: 15,
            cost: 65_536,
        },
        ToGuest::Shutdown {
            call: 16,
            signal: Some(3),
            grace_ms: 10_000,
        },
        ToGuest::ExitAck { call: u32::MAX },
        ToGuest::Thaw { call: 17 },
        ToGuest::Rehearse { call: 18 },
    ]
}

/// Every message of the agent.
#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn to_host() -> Vec<ToHost> {
    let exit = ProgramExit {
        code: 137,
        signal: Some(9),
        message: Some("killed by signal 9".into()),
    };
    let ack = |phase, frozen| {
        ToHost::HelloAck(HelloAck {
            nonce: 1,
            version: 2,
            agent: "0.1.0".into(),
            phase,
            frozen,
        })
    };
    let entry = |kind| {
        let owner = Owner { uid: 3, gid: 4 };
        Box::new(EntryHeader {
            path: "var/x".into(),
            kind,
            mode: 0o4755,
            owner,
            mtime: -1,
        })
    };
    let facts = PathFacts {
        kind: PathKind::Symlink,
        mode: 0o777,
        size: 3,
        owner: Owner::default(),
        mtime: 1_700_000_000,
        link_target: Some("../y".into()),
    };
    let failure = Failure::new(FailureKind::NotFound, "no such file").at("/nowhere");
    vec![
        ack(GuestPhase::Waiting, false),
        ack(GuestPhase::Started { pid: 80 }, true),
        ack(GuestPhase::Exited(exit.clone()), false),
        ToHost::HelloRefused {
            nonce: 2,
            version_min: 4,
            version_max: 5,
        },
        ToHost::Started { call: 1, pid: 80 },
        ToHost::Resumed {
            call: 2,
            nonce: 77,
            hook: None,
        },
        ToHost::Resumed {
            call: 2,
            nonce: 77,
            hook: Some(HookResult {
                output: b"done".to_vec(),
                duration_ms: 12,
            }),
        },
        ToHost::Done { call: 3 },
        ToHost::Failed { call: 4, failure },
        ToHost::Path {
            call: 5,
            info: PathInfo::Missing,
        },
        ToHost::Path {
            call: 5,
            info: PathInfo::Found(facts),
        },
        ToHost::Path {
            call: 5,
            info: PathInfo::Unreadable {
                message: "too many links".into(),
            },
        },
        ToHost::Data {
            call: 6,
            kind: OutputKind::Stdout,
            bytes: vec![0; 3],
        },
        ToHost::Data {
            call: 6,
            kind: OutputKind::Stderr,
            bytes: vec![],
        },
        ToHost::Data {
            call: 6,
            kind: OutputKind::File,
            bytes: vec![255],
        },
        ToHost::ExecExit {
            call: 7,
            status: ExitStatus::killed(9).timed_out(),
        },
        ToHost::Entry {
            call: 8,
            header: entry(EntryKind::File { size: 1 << 40 }),
        },
        ToHost::Entry {
            call: 8,
            header: entry(EntryKind::Directory),
        },
        ToHost::Entry {
            call: 8,
            header: entry(EntryKind::Symlink { target: "t".into() }),
        },
        ToHost::EntryEnd {
            call: 9,
            last: true,
        },
        ToHost::Uploaded {
            call: 10,
            bytes_written: u64::MAX,
        },
        ToHost::Credit { call: 11, cost: 1 },
        ToHost::ProgramExited(exit),
    ]
}
