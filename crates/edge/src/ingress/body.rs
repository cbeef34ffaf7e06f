//! Bodies on their way through: never collected, watched for silence, counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::idle::Idle;
use super::pool::Borrowed;
use crate::access_log::Record;

/// Why a body ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the other side broke off")]
    Broken(#[source] hyper::Error),
    #[error("nothing arrived for too long")]
    Silent,
}

/// A request's body on its way to the guest.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Option<Incoming>,
    idle: Idle,
    /// How much has passed.
    bytes: Arc<AtomicU64>,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, idle: Duration) -> Self {
        Self {
            incoming: (!incoming.is_end_stream()).then_some(incoming),
            idle: Idle::new(idle),
            bytes: Arc::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.incoming.is_none()
    }

    /// One that is empty, for a second attempt of a request without a body.
    pub(super) fn empty(like: &Self) -> Self {
        Self {
            incoming: None,
            idle: Idle::new(Duration::ZERO),
            bytes: Arc::clone(&like.bytes),
        }
    }

    /// Counts what passes.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        let frame = poll_watched(incoming, &mut this.idle, cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            // Trailers count as a sign of life.
            let length = frame.data_ref().map_or(1, |data| data.remaining() as u64);
            this.bytes.fetch_add(length, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

fn poll_watched(
    incoming: &mut Incoming,
    idle: &mut Idle,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    match Pin::new(incoming).poll_frame(cx) {
        Poll::Ready(frame) => {
            idle.alive();
            Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
        }
        Poll::Pending => idle.poll_over(cx).map(|()| Some(Err(BodyError::Silent))),
    }
}

/// An answer's body on its way to the client. Writes the request's line of the access log when it
/// is done with.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    source: Source,
    record: Option<Record>,
}

#[derive(Debug)]
enum Source {
    /// Ours; taken when sent.
    Page(Option<Bytes>),
    Guest {
        incoming: Incoming,
        idle: Idle,
        /// Goes back to the pool once the answer is complete.
        connection: Option<Borrowed>,
    },
}

impl AnswerBody {
    /// A text of our own.
    pub(super) fn page(text: Bytes) -> Self {
        Self {
            source: Source::Page((!text.is_empty()).then_some(text)),
            record: None,
        }
    }

    /// What the guest sends.
    pub(super) fn guest(incoming: Incoming, idle: Duration, connection: Borrowed) -> Self {
        let mut body = Self {
            source: Source::Guest {
                incoming,
                idle: Idle::new(idle),
                connection: Some(connection),
            },
            record: None,
        };
        body.give_back_if_complete();
        body
    }

    pub(super) fn set_record(&mut self, record: Record) {
        self.record = Some(record);
    }

    fn give_back_if_complete(&mut self) {
        if let Source::Guest {
            incoming,
            connection,
            ..
        } = &mut self.source
            && incoming.is_end_stream()
            && let Some(connection) = connection.take()
        {
            connection.give_back();
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Page(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Guest { incoming, idle, .. } => poll_watched(incoming, idle, cx),
        };
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(record), Some(data)) = (&mut this.record, frame.data_ref()) {
                    record.sent(data.remaining() as u64);
                }
                this.give_back_if_complete();
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(record) = &mut this.record {
                    record.broke(error);
                }
            }
            Poll::Ready(None) => {
                if let Source::Guest { connection, .. } = &mut this.source
                    && let Some(connection) = connection.take()
                {
                    connection.give_back();
                }
            }
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Page(text) => text.is_none(),
            Source::Guest { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Page(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Source::Guest { incoming, .. } => incoming.size_hint(),
        }
    }
}
