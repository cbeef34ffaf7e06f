//! Resolutions on their way to the daemon, and its answers.

use std::collections::HashMap;
use std::io;

use tokio::net::UnixStream;

use super::frame;
use super::message::{Ack, Event};
use crate::dns::{Question, Subscription};

/// Carries questions and answers until either side is gone or somebody else subscribes.
pub(super) async fn carry(stream: UnixStream, mut events: Subscription) -> io::Result<()> {
    let (mut from_daemon, mut to_daemon) = stream.into_split();
    // Reading is a task of its own, for half a frame must not be lost when an event comes.
    let (acks, mut answers) = tokio::sync::mpsc::channel(64);
    let reader = tokio::spawn(async move {
        while let Ok(Some(ack)) = frame::read::<Ack>(&mut from_daemon).await {
            if acks.send(ack).await.is_err() {
                return;
            }
        }
    });
    let mut waiting: HashMap<u64, Question> = HashMap::new();
    let mut number = 0;
    let outcome = loop {
        tokio::select! {
            event = events.next() => {
                let Some(question) = event else { break Ok(()) };
                // Those who gave up are forgotten, which bounds the table.
                waiting.retain(|_, question| question.is_waiting());
                number += 1;
                let event = Event { number, resolved: question.resolved.clone() };
                waiting.insert(number, question);
                if let Err(error) = frame::write(&mut to_daemon, &event).await {
                    break Err(error);
                }
            }
            ack = answers.recv() => {
                let Some(Ack { number, accepted }) = ack else { break Ok(()) };
                if let Some(question) = waiting.remove(&number) {
                    question.answer(accepted);
                }
            }
        }
    };
    reader.abort();
    outcome
}
