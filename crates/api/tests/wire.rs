//! What goes over the wire, letter by letter: public clients depend on it.

use api::cp::{CpClientFrame, CpEnd, CpHeader, CpResult, CpServerFrame, CpStart};
use api::error::{ErrorBody, ErrorDetail};
use api::exec::{ExecExit, ExecResize, ExecStart, ExecStreams};
use api::images::CreateImageRequest;
use api::instances::{
    CreateInstanceRequest, ForkOutcome, ForkRequest, ForkTarget, Instance, InstanceState,
    LogSource, LogsQuery, PathInfo, SnapshotCompression, StandbyRequest, StartRequest,
    UpdateInstanceRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn refuses<T: DeserializeOwned + std::fmt::Debug>(body: Value, named: &str) {
    let refusal = serde_json::from_value::<T>(body).expect_err(named);
    assert!(refusal.to_string().contains(named), "{refusal}");
}

fn writes(value: &impl Serialize, expected: Value) {
    assert_eq!(
        serde_json::to_value(value).expect("it serialises"),
        expected
    );
}

#[test]
fn requests_name_the_field_that_they_do_not_know() {
    let web = |field: &str| json!({"name": "web", "image": "demo", field: true});
    for field in [
        "colour",
        "hotplug_size",
        "disk_io_bps",
        "volumes",
        "gpu",
        "restart_policy",
    ] {
        refuses::<CreateInstanceRequest>(web(field), field);
    }
    refuses::<CreateInstanceRequest>(
        json!({"name": "web", "image": "demo", "network": {"mac": "02:00:00:00:00:01"}}),
        "mac",
    );
    refuses::<UpdateInstanceRequest>(json!({"auto_standby": {}}), "auto_standby");
    refuses::<StartRequest>(json!({"env": {}}), "env");
    refuses::<StandbyRequest>(json!({"compression": {}}), "enabled");
    refuses::<StandbyRequest>(
        json!({"compression": {"enabled": true, "codec": "zstd"}}),
        "codec",
    );
    refuses::<StandbyRequest>(
        json!({"compression": {"enabled": true, "algorithm": "gzip"}}),
        "lz4",
    );
    refuses::<UpdateInstanceRequest>(json!({"snapshot_policy": {}}), "snapshot_policy");
    refuses::<ForkRequest>(json!({"name": "a", "fork_mode": "x"}), "fork_mode");
    refuses::<ForkRequest>(
        json!({"name": "a", "post_fork": {"command": [], "x": 1}}),
        "`x`",
    );
    refuses::<CreateImageRequest>(json!({"name": "a", "credentials": {}}), "credentials");
    refuses::<ExecStart>(json!({"command": ["a"], "shell": "x"}), "shell");
    refuses::<CpStart>(json!({"direction": "to", "guest_path": "/", "x": 1}), "`x`");
}

#[test]
fn requests_name_the_field_that_they_miss() {
    refuses::<CreateInstanceRequest>(json!({"image": "demo"}), "name");
    refuses::<CreateInstanceRequest>(json!({"name": "web"}), "image");
    refuses::<ForkRequest>(json!({"count": 3}), "name");
    refuses::<ForkRequest>(json!({"name": "a", "target_state": "Paused"}), "Paused");
}

#[test]
fn what_is_not_said_is_not_sent() {
    let create = CreateInstanceRequest {
        name: "web".to_owned(),
        image: "demo".to_owned(),
        ..CreateInstanceRequest::default()
    };
    writes(&create, json!({"name": "web", "image": "demo"}));
    let fork = ForkRequest {
        name: "a".to_owned(),
        target_state: Some(ForkTarget::Standby),
        share_memory: Some(true),
        ..ForkRequest::default()
    };
    writes(
        &fork,
        json!({"name": "a", "target_state": "Standby", "share_memory": true}),
    );
    writes(&StandbyRequest::default(), json!({}));
    let compressed = SnapshotCompression {
        enabled: true,
        ..SnapshotCompression::default()
    };
    let standby = StandbyRequest {
        compression: Some(compressed),
        compression_delay: None,
    };
    writes(&standby, json!({"compression": {"enabled": true}}));
}

#[test]
fn an_instance_always_has_the_fields_that_clients_count_on() {
    let least = json!({
        "id": "a", "name": "web", "image": "demo", "state": "Template", "hypervisor": "qemu",
        "platform": "linux/amd64", "size": "1 GB", "overlay_size": "10 GB", "vcpus": 2,
        "network": {"enabled": false}, "has_snapshot": true,
        "created_at": "2026-01-01T00:00:00Z", "current_phase": "template",
        "current_phase_since": "2026-01-01T00:00:00Z", "fork_count": 1, "mem_locked": true,
        "memory": {"mode": "booted"},
    });
    let instance: Instance = serde_json::from_value(least).expect("an instance");
    let written = serde_json::to_value(&instance).expect("it serialises");
    for field in [
        "expires_at",
        "fork_of_template",
        "exit_code",
        "exit_message",
    ] {
        assert_eq!(written.get(field), Some(&Value::Null), "{field}");
    }
    assert_eq!(
        written["memory"],
        json!({"mode": "booted", "image_id": null})
    );
    assert_eq!(
        (&written["fork_count"], &written["mem_locked"]),
        (&json!(1), &json!(true))
    );
    for field in ["state_error", "started_at", "stopped_at", "volumes"] {
        assert_eq!(written.get(field), None, "{field}");
    }
    let future = serde_json::from_value::<Instance>({
        let mut more = written;
        more["gpu"] = json!({});
        more
    });
    assert_eq!(future.expect("more fields are no harm"), instance);
}

#[test]
fn states_have_one_spelling_and_one_phase() {
    for state in InstanceState::ALL {
        writes(&state, json!(state.as_str()));
        assert_eq!(state.phase(), state.as_str().to_lowercase());
        assert_eq!(state.phase().parse(), Ok(state));
    }
}

#[test]
fn fan_out_entries_are_an_instance_or_an_error() {
    let error = ErrorDetail {
        code: "name_conflict".to_owned(),
        message: "taken".to_owned(),
    };
    writes(
        &ForkOutcome::failed("web-2", error),
        json!({"name": "web-2", "error": {"code": "name_conflict", "message": "taken"}}),
    );
}

#[test]
fn error_bodies_have_no_empty_extras() {
    let body = ErrorBody::new("not_found", "a \"quoted\" name");
    writes(
        &body,
        json!({"code": "not_found", "message": "a \"quoted\" name"}),
    );
}

#[test]
fn exec_frames_are_what_public_clients_speak() {
    writes(&ExecExit { exit_code: 3 }, json!({"exitCode": 3}));
    let public = json!({"command": ["ls"], "tty": false, "wait_for_agent": 5});
    let start: ExecStart = serde_json::from_value(public.clone()).expect("a first frame");
    assert_eq!(start.streams, ExecStreams::Merged);
    writes(&start, public);
    let resize = json!({"resize": {"rows": 30, "cols": 90}});
    serde_json::from_value::<ExecResize>(resize.clone()).expect("a resize");
    for not_a_resize in [
        json!({"resize": {"rows": 30}}),
        json!({"resize": {"rows": 1, "cols": 1}, "x": 1}),
    ] {
        serde_json::from_value::<ExecResize>(not_a_resize).expect_err("it is stdin");
    }
}

#[test]
fn cp_frames_are_what_public_clients_speak() {
    writes(&CpClientFrame::End, json!({"type": "end"}));
    let done = |bytes_written| {
        CpServerFrame::Result(CpResult {
            success: true,
            bytes_written,
            error: None,
        })
    };
    writes(
        &done(5),
        json!({"type": "result", "success": true, "bytes_written": 5}),
    );
    writes(&done(0), json!({"type": "result", "success": true}));
    writes(
        &CpServerFrame::End(CpEnd { last: true }),
        json!({"type": "end", "final": true}),
    );
    let header = CpHeader {
        path: "src/a".to_owned(),
        mode: 0o644,
        ..CpHeader::default()
    };
    writes(
        &CpServerFrame::Header(header),
        json!({"type": "header", "path": "src/a", "mode": 420, "is_dir": false, "size": 0, "mtime": 0}),
    );
    let stat = PathInfo {
        exists: true,
        is_dir: Some(true),
        ..PathInfo::default()
    };
    writes(
        &CpServerFrame::Stat(stat),
        json!({"type": "stat", "exists": true, "is_dir": true}),
    );
}

#[test]
fn the_operations_log_has_an_older_name() {
    let query: LogsQuery = serde_json::from_value(json!({"source": "hypeman"})).expect("a query");
    assert_eq!(query.source, Some(LogSource::Coppice));
}

#[test]
fn the_document_has_security_and_tags() {
    let document = serde_json::to_value(api::openapi::base()).expect("it serialises");
    assert_eq!(
        document["components"]["securitySchemes"]["bearerAuth"]["scheme"],
        "bearer"
    );
    assert_eq!(document["info"]["version"], api::openapi::API_VERSION);
    assert_eq!(
        document["tags"].as_array().map(Vec::len),
        Some(api::openapi::TAGS.len())
    );
}
