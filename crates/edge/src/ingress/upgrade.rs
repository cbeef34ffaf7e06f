//! Websockets and the like: after the handshake, bytes both ways.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::Extensions;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::body::AnswerBody;
use super::connection::Client;
use super::headers;
use super::page::Page;
use crate::config::Limits;
use crate::directory::Known;
use crate::forward::{Ended, carry};

/// A client's wish to go on in another protocol.
#[derive(Debug)]
pub(super) struct Upgrade {
    pub(super) protocol: HeaderValue,
    client: Option<OnUpgrade>,
}

impl Upgrade {
    pub(super) fn new(protocol: HeaderValue, extensions: &mut Extensions) -> Self {
        Self {
            protocol,
            client: extensions.remove::<OnUpgrade>(),
        }
    }
}

/// The guest agrees: tells the client so, and carries bytes from then on.
pub(super) fn switch(
    mut response: Response<Incoming>,
    upgrade: Upgrade,
    client: &Arc<Client>,
    known: &Arc<Known>,
    limits: &Limits,
) -> Result<Response<AnswerBody>, Page> {
    let guest = response.extensions_mut().remove::<OnUpgrade>();
    let agreed = headers::upgrade(response.headers());
    let (Some(from_client), Some(from_guest), Some(protocol)) = (upgrade.client, guest, agreed)
    else {
        return Err(Page::new(
            StatusCode::BAD_GATEWAY,
            "The instance changes the protocol in a way that cannot be followed.",
            "",
        ));
    };
    let edge = Arc::clone(&client.edge);
    let (lifetime, ended, idle) = (client.lifetime.clone(), known.ended.clone(), limits.idle());
    let held = edge.metrics().upgraded.hold();
    tokio::spawn(async move {
        let _held = held;
        let both = async { tokio::try_join!(from_client, from_guest) };
        let both = tokio::select! {
            both = both => both,
            () = ended.cancelled() => return,
            () = lifetime.over() => return,
        };
        if let Ok((client, guest)) = both {
            let (client, guest): (TokioIo<Upgraded>, _) =
                (TokioIo::new(client), TokioIo::new(guest));
            let ended = Ended {
                generation: ended,
                lifetime,
                idle,
            };
            carry(client, guest, ended).await;
        }
    });
    let (mut parts, _) = response.into_parts();
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::set_upgrade(&mut parts.headers, protocol);
    Ok(Response::from_parts(
        parts,
        AnswerBody::page(bytes::Bytes::new()),
    ))
}
