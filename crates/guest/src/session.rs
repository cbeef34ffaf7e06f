//! What all sessions have in common.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{CallId, MAX_CHUNK, ToGuest, ToHost};
use tokio::sync::{Semaphore, mpsc};

use crate::LinkError;
use crate::link::Inner;

/// Opens a session: registered first, so that no answer can be lost, then asked for.
pub(crate) async fn open(
    inner: &Arc<Inner>,
    request: impl FnOnce(CallId) -> ToGuest,
) -> Result<(SessionInput, SessionOutput), LinkError> {
    let call = inner.next_call();
    let (queue, credit) = inner.router.expect_session(call);
    let input = SessionInput {
        inner: Arc::clone(inner),
        call,
        credit,
    };
    let output = SessionOutput {
        inner: Arc::clone(inner),
        call,
        queue,
    };
    inner.send(&request(call)).await?;
    Ok((input, output))
}

/// The half that sends. Dropping it cancels the session unless it has ended.
#[derive(Debug)]
pub(crate) struct SessionInput {
    inner: Arc<Inner>,
    call: CallId,
    credit: Arc<Semaphore>,
}

impl SessionInput {
    /// Sends data as credit allows. When cancelled, a prefix was sent.
    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(MAX_CHUNK));
            let message = ToGuest::Data {
                call: self.call,
                bytes: chunk.to_vec(),
            };
            let permit = self
                .credit
                .acquire_many(message.cost())
                .await
                .map_err(|_| LinkError::Ended)?;
            self.inner.send(&message).await?;
            permit.forget();
        }
        Ok(())
    }

    /// Sends a message about this session.
    pub(crate) async fn send(
        &mut self,
        message: impl FnOnce(CallId) -> ToGuest,
    ) -> Result<(), LinkError> {
        if self.credit.is_closed() {
            return Err(LinkError::Ended);
        }
        self.inner.send(&message(self.call)).await
    }
}

impl Drop for SessionInput {
    fn drop(&mut self) {
        self.inner.cancel(self.call);
    }
}

/// The half that receives. Dropping it cancels the session unless it has ended.
#[derive(Debug)]
pub(crate) struct SessionOutput {
    inner: Arc<Inner>,
    call: CallId,
    queue: mpsc::Receiver<ToHost>,
}

impl SessionOutput {
    /// The next message, whose cost is given back to the agent. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<ToHost, LinkError> {
        let message = self.queue.recv().await.ok_or(LinkError::Closed)?;
        let cost = message.cost();
        if cost > 0 {
            self.inner.router.consumed(self.call, cost);
        }
        match message {
            ToHost::Failed { failure, .. } => Err(LinkError::Refused(failure)),
            message => Ok(message),
        }
    }
}

impl Drop for SessionOutput {
    fn drop(&mut self) {
        self.inner.cancel(self.call);
    }
}
