//! From a rule to a connection with its guest, waking it if the rule says so.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use model::State;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::page::Page;
use super::pool::{Borrowed, Key};
use super::wake::{self, WakeError};
use crate::config::Rule;
use crate::directory::{Known, Snapshot};
use crate::live::{Edge, Lane};
use crate::metrics::Counted;

/// For the daemon to send the directory after it started the edge.
const FIRST_DIRECTORY: Duration = Duration::from_secs(5);
/// Between two attempts to connect to a guest that has just woken.
const RETRY: Duration = Duration::from_millis(20);
/// For the news that an instance went to sleep to follow its silence.
const NEWS: Duration = Duration::from_millis(300);
/// For a machine that stands still to go on or to be asleep, where nobody is to wake it.
const STILL: Duration = Duration::from_secs(5);

/// A guest and a connection to it.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) known: Arc<Known>,
    pub(super) key: Key,
    pub(super) connection: Borrowed,
}

/// What an instance's state means for a request.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    Ready(SocketAddr),
    Asleep,
    /// For a moment: it is on its way to standby, or is being forked and goes on.
    Still,
    Coming,
    Away,
}

fn readiness(known: &Known, port: u16) -> Readiness {
    match (known.entry.state, known.entry.address) {
        (State::Running, Some(address)) => Readiness::Ready(SocketAddr::new(address, port)),
        (State::Standby, _) => Readiness::Asleep,
        (State::Paused, _) => Readiness::Still,
        (State::Created | State::Initializing, _) => Readiness::Coming,
        (
            State::Running | State::Stopped | State::Shutdown | State::Template | State::Unknown,
            _,
        ) => Readiness::Away,
    }
}

/// One request on its way to one guest.
struct Way<'a> {
    edge: &'a Arc<Edge>,
    lane: Lane,
    rule: &'a Rule,
    name: &'a str,
    deadline: Instant,
    changes: watch::Receiver<Arc<Snapshot>>,
    /// Set once the request waits for the instance; counts it as held.
    held: Option<Counted>,
}

/// Gets a connection to the instance of this id or name, for a rule. It lives on the thread that asks.
pub(super) async fn reach(
    edge: &Arc<Edge>,
    lane: Lane,
    rule: &Rule,
    name: &str,
) -> Result<Reached, Page> {
    if let Some(reached) = at_once(edge, lane, rule, name).await {
        return Ok(reached);
    }
    let mut way = Way {
        edge,
        lane,
        rule,
        name,
        deadline: Instant::now() + edge.live().config.ingress.limits.wake(),
        changes: edge.directory().subscribe(),
        held: None,
    };
    // Boxed, so that the many requests that do not come here carry no room for it.
    Box::pin(way.go()).await
}

/// The way of nearly all requests: the instance runs, and a connection to it is idle.
async fn at_once(edge: &Arc<Edge>, lane: Lane, rule: &Rule, name: &str) -> Option<Reached> {
    let known = Arc::clone(edge.instances().find(name)?);
    let Readiness::Ready(address) = readiness(&known, rule.target.port) else {
        return None;
    };
    let key = Key::new(&known, address, lane);
    let connection = Borrowed::idle(edge, &key).await?;
    Some(Reached {
        known,
        key,
        connection,
    })
}

impl Way<'_> {
    async fn go(&mut self) -> Result<Reached, Page> {
        let filled = self.changes.wait_for(|instances| instances.is_filled());
        if !matches!(timeout(FIRST_DIRECTORY, filled).await, Ok(Ok(_))) {
            return Err(self.page(
                StatusCode::SERVICE_UNAVAILABLE,
                "The edge has just started and has not been told yet where instances are.",
                "Try again in a moment.",
            ));
        }
        let mut waited_for_news = false;
        loop {
            let known = self.changes.borrow_and_update().find(self.name).cloned();
            let known = known.ok_or_else(|| self.no_instance())?;
            match readiness(&known, self.rule.target.port) {
                Readiness::Ready(address) => match self.connect(&known, address).await {
                    Ok(reached) => return Ok(reached),
                    Err(_)
                        if self.rule.wake
                            && self.held.is_some()
                            && Instant::now() < self.deadline =>
                    {
                        self.pause().await;
                    }
                    // A machine that refuses is there.
                    Err(error)
                        if !waited_for_news
                            && (self.rule.wake
                                || error.kind() != io::ErrorKind::ConnectionRefused) =>
                    {
                        waited_for_news = true;
                        // Whether there are news or not, the next attempt tells.
                        let _ = timeout(NEWS, self.changes.changed()).await;
                    }
                    Err(error) => return Err(self.no_connection(address, &error)),
                },
                Readiness::Asleep if self.rule.wake => self.wake(&known).await?,
                Readiness::Coming | Readiness::Still if self.rule.wake => {
                    self.hold()?;
                    self.wait_until_not(&known).await?;
                }
                Readiness::Still if Instant::now() < self.deadline => {
                    self.hold()?;
                    self.deadline = self.deadline.min(Instant::now() + STILL);
                    // Whoever waited in vain is told so with the next look.
                    let _ = self.wait_until_not(&known).await;
                }
                Readiness::Asleep | Readiness::Still | Readiness::Coming | Readiness::Away => {
                    return Err(self.not_running(&known));
                }
            }
        }
    }

    async fn connect(&self, known: &Arc<Known>, address: SocketAddr) -> io::Result<Reached> {
        let key = Key::new(known, address, self.lane);
        let connection = Borrowed::open(self.edge, &key, known).await?;
        Ok(Reached {
            known: Arc::clone(known),
            key,
            connection,
        })
    }

    async fn wake(&mut self, known: &Known) -> Result<(), Page> {
        self.hold()?;
        let asked = wake::wake(self.edge, &known.entry.id).await;
        match asked {
            Ok(()) => self.wait_until_not(known).await,
            // Somebody else may have woken it, which the daemon refuses to do twice.
            Err(WakeError::Refused(_)) if self.is_not(known) => Ok(()),
            Err(error) => {
                let name = self.name;
                Err(self.page(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("Instance {name} is in Standby and could not be woken: {error}."),
                    "Try again later, or wake it with: coppice restore.",
                ))
            }
        }
    }

    /// Counts the request as held, unless too many are.
    fn hold(&mut self) -> Result<(), Page> {
        if self.held.is_some() {
            return Ok(());
        }
        let held = &self.edge.metrics().held_requests;
        if held.count() >= self.edge.live().config.ingress.limits.held_requests {
            return Err(self.page(
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many requests wait for sleeping instances.",
                "Try again in a moment.",
            ));
        }
        self.held = Some(held.hold());
        Ok(())
    }

    fn is_not(&self, known: &Known) -> bool {
        let instances = self.edge.instances();
        let now = instances.find(self.name);
        now.is_none_or(|now| now.entry.state != known.entry.state)
    }

    /// Waits until the instance is in another state than it was.
    async fn wait_until_not(&mut self, known: &Known) -> Result<(), Page> {
        let (name, state) = (self.name, known.entry.state);
        let is_other = |instances: &Arc<Snapshot>| {
            let now = instances.find(name);
            now.is_none_or(|now| now.entry.state != state)
        };
        // The sender lives as long as the edge, so the wait itself does not fail.
        let waited = timeout_at(self.deadline, self.changes.wait_for(is_other))
            .await
            .is_ok();
        if waited {
            return Ok(());
        }
        Err(self.page(
            StatusCode::GATEWAY_TIMEOUT,
            format!("Instance {name} is still {state}; the request waited for it to run."),
            "Try again in a moment.",
        ))
    }

    async fn pause(&mut self) {
        tokio::select! {
            _ = self.changes.changed() => {}
            () = sleep(RETRY) => {}
        }
    }

    fn page(&self, status: StatusCode, what: impl Into<String>, hint: &str) -> Page {
        Page::new(status, what, hint).retry(1)
    }

    fn no_instance(&self) -> Page {
        let name = self.name;
        let what = format!("There is no instance {name}.");
        match self.rule.hostname.capture() {
            Some(_) => Page::new(
                StatusCode::NOT_FOUND,
                what,
                "The first part of the host name says which instance is meant.",
            ),
            None => Page::new(
                StatusCode::BAD_GATEWAY,
                what,
                "It was deleted, or renamed, after this ingress was made.",
            ),
        }
    }

    fn not_running(&self, known: &Known) -> Page {
        let (name, state) = (self.name, known.entry.state);
        let hint = match state {
            State::Standby => {
                "Wake it with: coppice restore. A rule with wake does that by itself."
            }
            State::Stopped | State::Shutdown => "Start it with: coppice start.",
            State::Paused => "It is being forked or put in standby; try again in a moment.",
            State::Template => "A template never runs; fork it and use the fork.",
            State::Created | State::Initializing => "It is starting; try again in a moment.",
            State::Running => "It has no network address; create it with networking.",
            State::Unknown => "The daemon's log says more.",
        };
        let what = match state {
            State::Running => format!("Instance {name} is Running but has no address."),
            State::Unknown => format!("The state of instance {name} is not known."),
            state => format!("Instance {name} is in state {state}, so nothing in it can answer."),
        };
        self.page(StatusCode::SERVICE_UNAVAILABLE, what, hint)
    }

    fn no_connection(&self, address: SocketAddr, error: &io::Error) -> Page {
        let name = self.name;
        let port = address.port();
        match error.kind() {
            io::ErrorKind::TimedOut => self.page(
                StatusCode::GATEWAY_TIMEOUT,
                format!("Instance {name} did not accept a connection on port {port} in time (tried {address})."),
                "It may be overloaded, or its firewall drops the packets.",
            ),
            io::ErrorKind::ConnectionRefused => self.page(
                StatusCode::BAD_GATEWAY,
                format!("Instance {name} refuses connections on port {port} (tried {address})."),
                "Nothing listens there: the program may still be starting, use another port, or listen on 127.0.0.1 only; it must listen on 0.0.0.0.",
            ),
            _ => self.page(
                StatusCode::BAD_GATEWAY,
                format!("Instance {name} cannot be reached on port {port} (tried {address}): {error}."),
                "The instance may have stopped in this moment.",
            ),
        }
    }
}
