//! Talking to the real agent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guest::{
    Events, ExecSpec, GuestNetwork, Identity, Link, LinkError, MachineId, Output, StartSpec,
};
use hypervisor::Vm;

/// For anything a guest is asked; it boots in two to three seconds on an idle host.
const DEADLINE: Duration = Duration::from_secs(60);

/// The events must be kept as long as the link is used: an agent whose events nobody takes is cut off. A greeting that
/// is lost is repeated, as the daemon does it: a machine that was saved ends its connections when it goes on.
pub(crate) async fn connect(vm: &dyn Vm) -> (Link, Events) {
    for _ in 0..3 {
        let stream = vm.dial(DEADLINE).await.unwrap();
        match Link::connect(stream, DEADLINE).await {
            Err(LinkError::Closed) => {}
            connected => return connected.unwrap(),
        }
    }
    panic!("the agent ends every connection");
}

/// Sets a booted machine up with a program that does nothing.
pub(crate) async fn start(vm: &dyn Vm) {
    start_in(vm, None).await;
}

/// As [`start`], in a network.
pub(crate) async fn start_in(vm: &dyn Vm, network: Option<GuestNetwork>) {
    let spec = StartSpec {
        instance_id: "conformance".into(),
        hostname: "conformance".into(),
        machine_id: MachineId::default(),
        entropy: vec![7; guest::MIN_ENTROPY],
        wall_clock_ns: now(),
        argv: vec!["/bin/sleep".into(), "1000000".into()],
        stop_signal: 15,
        network,
        ..StartSpec::default()
    };
    let (link, _events) = connect(vm).await;
    link.start(spec, DEADLINE).await.unwrap();
}

/// Another machine than the one that was started.
pub(crate) fn identity() -> Identity {
    Identity {
        instance_id: "fork".into(),
        hostname: "fork".into(),
        machine_id: [3; 16],
        entropy: vec![8; guest::MIN_ENTROPY],
        wall_clock_ns: now(),
        new_machine: true,
        post_fork: None,
        network: None,
    }
}

/// Nanoseconds fit until 2554.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_nanos() as u64
}

/// Runs a shell command and gives its standard output.
pub(crate) async fn shell(vm: &dyn Vm, command: &str) -> String {
    let (link, _events) = connect(vm).await;
    run(&link, &["/bin/sh", "-c", command]).await
}

/// Runs a command and gives its standard output.
pub(crate) async fn run(link: &Link, argv: &[&str]) -> String {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    let (_input, mut output) = link
        .exec(ExecSpec {
            argv,
            ..ExecSpec::default()
        })
        .await
        .unwrap()
        .split();
    let mut text = Vec::new();
    loop {
        match output.next().await.unwrap() {
            Some(Output::Stdout(bytes)) => text.extend_from_slice(&bytes),
            Some(Output::Stderr(bytes)) => {
                eprintln!("guest: {}", String::from_utf8_lossy(&bytes));
            }
            Some(Output::Exit(_)) | None => break,
        }
    }
    String::from_utf8(text).unwrap().trim_end().to_owned()
}

pub(crate) async fn power_off(vm: &dyn Vm) {
    let (link, _events) = connect(vm).await;
    link.shutdown(None, Duration::from_secs(2)).await.unwrap();
}
