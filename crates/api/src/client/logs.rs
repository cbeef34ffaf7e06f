//! Logs as a stream of lines: server-sent events whose data are JSON strings.

use std::collections::VecDeque;

use reqwest::Response;

use super::{Client, ClientError};
use crate::instances::LogsQuery;

/// Longest event; a server cuts lines long before this.
const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

impl Client {
    /// The log of an instance; with `follow` the stream does not end by itself.
    pub async fn logs(&self, instance: &str, query: &LogsQuery) -> Result<LogStream, ClientError> {
        let response = self
            .get(&["instances", instance, "logs"])
            .query(query)?
            .endless()
            .send()
            .await?;
        Ok(LogStream {
            client: self.clone(),
            response,
            events: Events::default(),
        })
    }
}

/// Lines of a log.
pub struct LogStream {
    client: Client,
    response: Response,
    events: Events,
}

impl LogStream {
    /// The next line, or none at the end. Nothing is lost when it is dropped
    /// while it waits.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(data) = self.events.ready.pop_front() {
                return serde_json::from_str(&data)
                    .map(Some)
                    .map_err(ClientError::Decode);
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.events.feed(&chunk)?,
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.client.broken(error)),
            }
        }
    }
}

/// Takes an event stream apart.
#[derive(Default)]
struct Events {
    line: Vec<u8>,
    data: Option<String>,
    ready: VecDeque<String>,
}

impl Events {
    fn feed(&mut self, chunk: &[u8]) -> Result<(), ClientError> {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() > MAX_EVENT_BYTES {
                return Err(ClientError::Protocol("an event is too long"));
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.end_line(&line)?;
            }
        }
        Ok(())
    }

    fn end_line(&mut self, line: &[u8]) -> Result<(), ClientError> {
        let line = std::str::from_utf8(line)
            .map_err(|_| ClientError::Protocol("an event is not UTF-8"))?
            .trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            self.ready.extend(self.data.take());
        } else if let Some(value) = line.strip_prefix("data:") {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_they_were_cut() {
        let stream = "data: \"one\"\n\n: still here\n\ndata:\"tw\u{f6}\"\r\n\r\nevent: x\ndata: a\ndata: b\n\ndata: unfinished";
        for size in 1..stream.len() {
            let mut events = Events::default();
            for chunk in stream.as_bytes().chunks(size) {
                events.feed(chunk).expect("a good stream");
            }
            assert_eq!(events.ready, ["\"one\"", "\"tw\u{f6}\"", "a\nb"]);
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut events = Events::default();
        events
            .feed(&vec![b'x'; MAX_EVENT_BYTES + 1])
            .expect_err("too long");
    }
}
