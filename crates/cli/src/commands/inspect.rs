//! `inspect`: all that is known of instances.

use api::client::Client;
use api::instances::{
    CompressionAlgorithm, EgressMode, Instance, InstanceState, MemoryImage, SnapshotPolicy,
};

use super::network::GROUP_TAG;
use crate::args::InspectArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::ports;
use crate::printer::Printer;
use crate::sheet::Sheet;
use crate::units;

pub(crate) async fn inspect(
    client: &Client,
    printer: &Printer,
    args: InspectArgs,
) -> Result<(), Failure> {
    for (index, name) in args.instances.iter().enumerate() {
        match client.get_instance(name).await {
            Ok(instance) => printer.show(&instance, |instance| {
                let gap = if index > 0 { "\n" } else { "" };
                format!("{gap}{}", describe(instance, args.show_env))
            })?,
            Err(error) => return Err(explain::instance(client, name, Deed::Look, error).await),
        }
    }
    Ok(())
}

fn describe(instance: &Instance, show_env: bool) -> String {
    let mut sheet = Sheet::default();
    sheet.row("name", &instance.name);
    sheet.row("id", &instance.id);
    sheet.row("state", &state(instance));
    sheet.row("image", &instance.image);
    sheet.row("platform", &instance.platform);
    sheet.row("hypervisor", &instance.hypervisor);
    sheet.row("memory", &instance.size);
    sheet.row("processors", &instance.vcpus.to_string());
    sheet.row("disk", &instance.overlay_size);
    network(&mut sheet, instance);
    sheet.row("memory from", &origin(instance));
    if instance.state == InstanceState::Template || instance.fork_count > 0 {
        let locked = if instance.mem_locked { ", locked" } else { "" };
        sheet.row("forks", &format!("{}{locked}", instance.fork_count));
    }
    if let Some(backend) = instance.fork_memory_backend {
        sheet.row("forks' memory", &format!("by {}", backend.as_str()));
    }
    if let Some(prefetch) = instance.prefetch {
        sheet.row("hot pages", prefetch.as_str());
    }
    if let Some(image) = &instance.memory_image {
        sheet.row("asleep in", &memory_image(image));
    }
    if let Some(policy) = &instance.snapshot_policy {
        sheet.row("compression", &compression(policy));
    }
    sheet.time("created", Some(instance.created_at));
    sheet.time("started", instance.started_at);
    sheet.time("stopped", instance.stopped_at);
    sheet.time("expires", instance.expires_at);
    if let Some(code) = instance.exit_code {
        let message = instance.exit_message.as_deref().unwrap_or_default();
        sheet.row("exit code", format!("{code} {message}").trim_end());
    }
    for (phase, ms) in &instance.phase_durations_ms {
        let seconds = *ms as f64 / 1000.0;
        sheet.row("time in phase", &format!("{phase} {seconds:.1}s"));
    }
    for (key, value) in &instance.tags {
        sheet.row("tag", &format!("{key}={value}"));
    }
    for (key, value) in &instance.env {
        let value = if show_env { value } else { "…" };
        sheet.row("env", &format!("{key}={value}"));
    }
    sheet.into_text()
}

fn state(instance: &Instance) -> String {
    match &instance.state_error {
        Some(error) => format!("{} ({error})", instance.state),
        None => instance.state.to_string(),
    }
}

fn network(sheet: &mut Sheet, instance: &Instance) {
    let network = &instance.network;
    if !network.enabled {
        sheet.row("network", "none");
        return;
    }
    sheet.row(
        "network",
        network
            .ip
            .as_deref()
            .unwrap_or("no address while it has no VMM"),
    );
    if let Some(group) = instance
        .tags
        .get(GROUP_TAG)
        .filter(|group| !group.is_empty())
    {
        sheet.row("group", group);
    }
    for port in &network.publish {
        sheet.row("published", &ports::shown(port));
    }
    if let Some(egress) = &network.egress {
        let mode = match egress.mode {
            EgressMode::Open => "open, private networks excepted",
            EgressMode::None => "none",
            EgressMode::AllowList => "allow-list",
        };
        sheet.row("egress", mode);
        for entry in egress.cidrs.iter().chain(&egress.domains) {
            sheet.row("egress to", entry);
        }
    }
    for block in &network.allow {
        sheet.row("allowed", block);
    }
    for (label, rate) in [
        ("upload", &network.bandwidth_upload),
        ("download", &network.bandwidth_download),
    ] {
        if let Some(rate) = rate {
            sheet.row(label, &format!("{rate} at most"));
        }
    }
}

fn memory_image(image: &MemoryImage) -> String {
    let layers = match image.layers {
        1 => "1 layer".to_owned(),
        layers => format!("{layers} layers"),
    };
    let (memory, stored) = (image.memory_bytes, image.stored_bytes);
    format!(
        "{} ({} of memory, {layers}, {})",
        units::bytes(stored),
        units::bytes(memory),
        image.encoding.as_str()
    )
}

/// Of its memory images, where that is not left to the server.
fn compression(policy: &SnapshotPolicy) -> String {
    let Some(compression) = policy.compression.as_ref().filter(|one| one.enabled) else {
        return "off".to_owned();
    };
    let mut text = compression
        .algorithm
        .map_or("on", CompressionAlgorithm::as_str)
        .to_owned();
    if let Some(level) = compression.level {
        text.push_str(&format!(", level {level}"));
    }
    text
}

fn origin(instance: &Instance) -> String {
    let mut text = instance.memory.mode.as_str().to_owned();
    if let Some(image) = &instance.memory.image_id {
        text.push_str(&format!(", image {image}"));
    }
    if let Some(parent) = &instance.fork_of_template {
        text.push_str(&format!(", of template {parent}"));
    }
    if let Some(backend) = instance.memory_backend {
        text.push_str(&format!(", by {}", backend.as_str()));
    }
    text
}
