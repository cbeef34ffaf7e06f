//! Logs.

use crate::cli::transcript;
use crate::server::{Fake, Script};

fn fake() -> Fake {
    let stream = "data: \"first\"\n\n: comment\n\ndata: \"\"\n\ndata: \"l\\u00e4st \\\"q\\\"\"\n\n";
    let headers = [("content-type", "text/event-stream")];
    Script::default()
        .raw(
            "GET /instances/web/logs?follow=false&source=app&tail=100",
            200,
            &headers,
            stream.to_owned(),
        )
        .error(
            "GET /instances/web/logs?follow=true&source=vmm&tail=5",
            404,
            "log_not_found",
            "web has no vmm log yet",
        )
        .serve()
}

#[test]
fn lines_come_out_as_they_were_written() {
    insta::assert_snapshot!("logs", transcript(&fake(), &["logs", "web"]));
    insta::assert_snapshot!("logs-json", transcript(&fake(), &["logs", "web", "--json"]));
}

#[test]
fn a_missing_log_is_an_error() {
    insta::assert_snapshot!(
        "logs-missing",
        transcript(
            &fake(),
            &["logs", "web", "-f", "--source", "vmm", "--tail", "5"]
        )
    );
}
