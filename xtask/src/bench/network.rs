//! The network: slots, forks that are connected, and requests through ingress.

use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use serde_json::Value;

use super::lab::{Lab, named};
use super::report::Report;
use super::samples::ms;
use crate::process;
use crate::workspace::Workspace;

/// A prepared slot, ms.
const TAKE_BOUND_MS: f64 = 2.0;

/// A fork with a network against one without.
const CONNECTED_BOUND: f64 = 1.15;

/// Half the requests per second of none in between: twice the time of each.
const DIRECT_BOUND: f64 = 1.0 / 0.5;

/// Against Debian's nginx.
const NGINX_BOUND: f64 = 1.0 / 0.7;

/// Where the guests' web server listens.
const WEB: u16 = 8080;

/// What the programs of the crates measure by themselves.
pub(super) fn measure_parts(
    workspace: &Workspace,
    quick: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    println!("slots of the network");
    let slots = build(workspace, "network", "slot_speed", &["fake"])?;
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount"])
        .arg(slots)
        .arg(if quick { "5" } else { "20" });
    let figures = last_line(&mut command)?;
    for (what, name) in [
        ("taking a slot, p50", "take"),
        ("giving it back, p50", "give_back"),
    ] {
        let p50 = number(&figures, &[name, "p50"])? / 1e3;
        report.at_most(what, "ms", &[p50], TAKE_BOUND_MS);
    }
    println!("requests through ingress");
    let figures = ingress_figures(workspace, quick, None)?;
    if figures.get("edge_of_nginx").is_some() {
        ratio_of(
            report,
            "a request through ingress, nginx",
            &figures,
            "edge_of_nginx",
            NGINX_BOUND,
        )?;
    } else {
        println!("    skipped: nginx is not installed: apt-get install nginx-light");
    }
    Ok(())
}

/// Requests per second of several ways to one web server: that of the benchmark, or one in a guest.
fn ingress_figures(
    workspace: &Workspace,
    quick: bool,
    origin: Option<String>,
) -> anyhow::Result<Value> {
    let program = build(workspace, "edge", "ingress_bench", &[])?;
    let rounds = if quick { "3" } else { "9" };
    let mut command = Command::new(program);
    command.args(["--rounds", rounds, "--seconds", "1"]);
    if let Some(origin) = origin {
        command.args(["--origin", &origin]);
    }
    last_line(&mut command)
}

/// The benchmark compares rates round by round; times are their inverse.
fn ratio_of(
    report: &mut Report,
    what: &'static str,
    figures: &Value,
    name: &str,
    bound: f64,
) -> anyhow::Result<()> {
    let rate = number(figures, &[name])?;
    report.ratio(what, "×", &[1.0 / rate], &[1.0], bound);
    Ok(())
}

/// A fork with a network that answers a command, against one without. That it is reached from the moment
/// it is announced is the tests' to prove.
pub(super) async fn measure_forks(
    lab: &Lab<'_>,
    workspace: &Workspace,
    quick: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    println!("a fork on the network");
    let alone = lab.template_of("alone", false, &["true"]).await?;
    let line = format!(
        "mkdir /dev/shm/www && echo page > /dev/shm/www/index.html && \
         busybox httpd -p {WEB} -h /dev/shm/www"
    );
    let server = ["/bin/sh", "-c", &line];
    let connected = lab.template_of("connected", true, &server).await?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..=lab.samples(20, 7) {
        for first in [round % 2 == 0, round % 2 != 0] {
            let (source, samples) = if first {
                (&connected, &mut with)
            } else {
                (&alone, &mut without)
            };
            let began = Instant::now();
            let fork = lab.client.fork(&source.id, &named("net")).await?;
            lab.exec(&fork.id, &["true"]).await?;
            let took = ms(began.elapsed());
            lab.remove(&fork.id).await?;
            if round > 0 {
                samples.push(took);
            }
        }
    }
    report.ratio(
        "connected fork → first exec, not connected",
        "ms",
        &with,
        &without,
        CONNECTED_BOUND,
    );
    println!("requests to a guest through ingress");
    let fork = lab.client.fork(&connected.id, &named("served")).await?;
    let ip = fork.network.ip.as_ref().context("no address")?;
    let figures = ingress_figures(workspace, quick, Some(format!("{ip}:{WEB}")))?;
    ratio_of(
        report,
        "a request to a guest through ingress, direct",
        &figures,
        "edge_of_direct",
        DIRECT_BOUND,
    )?;
    lab.remove(&fork.id).await
}

fn build(
    workspace: &Workspace,
    package: &str,
    example: &str,
    features: &[&str],
) -> anyhow::Result<std::path::PathBuf> {
    let mut cargo = process::cargo(workspace);
    cargo.args([
        "build",
        "--release",
        "--package",
        package,
        "--example",
        example,
    ]);
    if !features.is_empty() {
        cargo.args(["--features", &features.join(",")]);
    }
    process::run(&mut cargo)?;
    Ok(workspace.target_dir.join("release/examples").join(example))
}

fn last_line(command: &mut Command) -> anyhow::Result<Value> {
    let text = process::output(command)?;
    let line = text.lines().last().context("no figures")?;
    serde_json::from_str(line).with_context(|| format!("figures {line:?}"))
}

fn number(figures: &Value, path: &[&str]) -> anyhow::Result<f64> {
    let found = path.iter().try_fold(figures, |at, key| at.get(key));
    let number = found.and_then(Value::as_f64);
    number.with_context(|| format!("no {} in {figures}", path.join(".")))
}
