//! The wire form of every message, frozen. Agents live on in memory images: what a version once
//! sent must stay readable, so this snapshot may grow but no line of a released version may change.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod samples;

use std::collections::BTreeSet;

use protocol::{ToGuest, ToHost, VERSION_MAX, VERSION_MIN};
use serde::Serialize;
use serde_json::{Value, json};

#[test]
fn the_wire_form_of_every_message_is_frozen() {
    let surface = json!({
        "version_min": VERSION_MIN,
        "version_max": VERSION_MAX,
        "to_guest": forms(&samples::to_guest()),
        "to_host": forms(&samples::to_host()),
    });
    insta::assert_json_snapshot!("surface_v2", surface);
}

#[test]
fn every_kind_of_message_has_a_sample() {
    let guest: BTreeSet<u8> = samples::to_guest().iter().map(index_to_guest).collect();
    assert_eq!(guest, (0..18).collect());
    let host: BTreeSet<u8> = samples::to_host().iter().map(index_to_host).collect();
    assert_eq!(host, (0..14).collect());
}

fn forms<T: Serialize>(messages: &[T]) -> Vec<Value> {
    messages
        .iter()
        .map(|message| {
            let bytes = postcard::to_allocvec(message).unwrap();
            json!({ "message": message, "bytes": hex::encode(bytes) })
        })
        .collect()
}

// A new message makes these two fail to compile, which is the reminder to add a sample.

fn index_to_guest(message: &ToGuest) -> u8 {
    match message {
        ToGuest::Hello(_) => 0,
        ToGuest::Start { .. } => 1,
        ToGuest::Resume { .. } => 2,
        ToGuest::Quiesce { .. } => 3,
        ToGuest::Stat { .. } => 4,
        ToGuest::Exec { .. } => 5,
        ToGuest::Upload { .. } => 6,
        ToGuest::Download { .. } => 7,
        ToGuest::Data { .. } => 8,
        ToGuest::Eof { .. } => 9,
        ToGuest::Resize { .. } => 10,
        ToGuest::Signal { .. } => 11,
        ToGuest::Cancel { .. } => 12,
        ToGuest::Credit { .. } => 13,
        ToGuest::Shutdown { .. } => 14,
        ToGuest::ExitAck { .. } => 15,
        ToGuest::Thaw { .. } => 16,
        ToGuest::Rehearse { .. } => 17,
    }
}

fn index_to_host(message: &ToHost) -> u8 {
    match message {
        ToHost::HelloAck(_) => 0,
        ToHost::HelloRefused { .. } => 1,
        ToHost::Started { .. } => 2,
        ToHost::Resumed { .. } => 3,
        ToHost::Done { .. } => 4,
        ToHost::Failed { .. } => 5,
        ToHost::Path { .. } => 6,
        ToHost::Data { .. } => 7,
        ToHost::ExecExit { .. } => 8,
        ToHost::Entry { .. } => 9,
        ToHost::EntryEnd { .. } => 10,
        ToHost::Uploaded { .. } => 11,
        ToHost::Credit { .. } => 12,
        ToHost::ProgramExited(_) => 13,
    }
}
