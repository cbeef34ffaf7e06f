//! What `doctor` says about the edge: the process that serves ingress, names and published ports.

use std::io;
use std::path::Path;

use ::edge::{CertificateState, ClientError, Listening, Place, Rejected, Status};

use super::{Finding, ok, warning};
use crate::edge::{GUEST_DNS_PORT, HOST_DNS_PORT};
use crate::instances::chain;

/// As the edge calls what a socket is for.
const DNS: &str = "dns";

/// What the edge is judged by.
pub(super) struct Around<'a> {
    /// The daemon answers.
    pub(super) daemon_runs: bool,
    /// Instances have networks here, so names are served.
    pub(super) connects: bool,
    /// The edge's files.
    pub(super) place: &'a Place,
    /// Directory of certificates.
    pub(super) certificates: &'a Path,
    /// Zone of instances' names.
    pub(super) zone: &'a str,
}

pub(super) fn findings(status: Result<Status, ClientError>, around: &Around<'_>) -> Vec<Finding> {
    match status {
        Ok(status) => running(&status, around),
        Err(error) => vec![absent(&error, around)],
    }
}

fn absent(error: &ClientError, around: &Around<'_>) -> Finding {
    let why = chain(error);
    match error {
        ClientError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            warning("edge", why, "run this as root")
        }
        ClientError::Io { .. } if around.daemon_runs && around.connects => {
            let log = around.place.log();
            let remedy = format!("{} says why; restart coppiced", log.display());
            let found = "not running: ingress, names and published ports are not served";
            warning("edge", found.to_owned(), &remedy)
        }
        ClientError::Io { .. } => ok(
            "edge",
            "not running; the daemon starts it when there is something to serve".to_owned(),
        ),
        ClientError::Silent(_) => {
            let lock = around.place.lock();
            let remedy = format!(
                "end the process that has {0} (fuser {0} tells it), and restart coppiced",
                lock.display()
            );
            warning("edge", why, &remedy)
        }
        ClientError::Unexpected(_) => warning(
            "edge",
            format!("{why}: it is of another version"),
            "restart coppiced, which replaces it",
        ),
    }
}

fn running(status: &Status, around: &Around<'_>) -> Vec<Finding> {
    let mut findings = vec![serving(status)];
    let missing = status.missing.iter();
    findings.extend(missing.map(|rejected| {
        let remedy = match rejected {
            Rejected::PortInUse { .. } => {
                "end the program that has the port (ss -lntup tells it), or use another; it is \
                 tried again and again"
            }
            _ => {
                "correct the configuration of ingress or the host's addresses, and restart coppiced"
            }
        };
        warning("edge", rejected.to_string(), remedy)
    }));
    findings.extend(certificates(&status.certificates, around.certificates));
    findings.extend(names(status, around));
    findings
}

fn serving(status: &Status) -> Finding {
    if status.revision.is_none() {
        return warning(
            "edge",
            "running, and serves nothing: what it was told was refused".to_owned(),
            "the log of coppiced says why",
        );
    }
    let served: Vec<String> = status
        .listeners
        .iter()
        .filter(|one| one.purpose != DNS)
        .map(|one| format!("{} {} ({})", one.protocol, one.address, one.purpose))
        .collect();
    let what = match served.as_slice() {
        [] => "no ingress or published port of loopback".to_owned(),
        served => served.join(", "),
    };
    ok("edge", format!("running: {what}"))
}

fn certificates(states: &[CertificateState], directory: &Path) -> Vec<Finding> {
    let broken = states.iter().filter_map(|state| {
        let problem = state.problem.as_ref()?;
        let found = format!("{}: {problem}; the one from before is in use", state.name);
        let remedy = format!(
            "correct {0}.crt and {0}.key in {1}",
            state.name,
            directory.display()
        );
        Some(warning("certificates", found, &remedy))
    });
    broken.collect()
}

fn names(status: &Status, around: &Around<'_>) -> Vec<Finding> {
    if !around.connects || status.revision.is_none() {
        return Vec::new();
    }
    let at = |port: u16| -> Option<&Listening> {
        let mut listeners = status.listeners.iter();
        listeners.find(|one| one.purpose == DNS && one.address.port() == port)
    };
    let mut findings = match (at(GUEST_DNS_PORT), at(HOST_DNS_PORT)) {
        (Some(guests), Some(host)) => vec![ok(
            "dns",
            format!(
                "guests are answered at {}, this host at {}, names end in .{}",
                guests.address, host.address, around.zone
            ),
        )],
        _ => vec![warning(
            "dns",
            format!(
                "ports {GUEST_DNS_PORT} and {HOST_DNS_PORT} are not both served: names may not resolve"
            ),
            "end the program that has the port (ss -lnup tells it), and restart coppiced",
        )],
    };
    if around.daemon_runs && !status.subscribed {
        findings.push(warning(
            "dns",
            "the daemon does not listen to the edge: instances with an allow-list of names resolve nothing"
                .to_owned(),
            "restart coppiced",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use ::edge::Protocol;

    use super::*;
    use crate::doctor::Grade;

    fn listening(address: &str, purpose: &str) -> Listening {
        Listening {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            purpose: purpose.to_owned(),
        }
    }

    fn status() -> Status {
        Status {
            revision: Some(3),
            directory_sequence: 1,
            instances: 2,
            listeners: vec![
                listening("0.0.0.0:80", "ingress"),
                listening("10.208.0.1:4953", "dns"),
                listening("10.208.0.1:4954", "dns"),
            ],
            missing: vec![],
            certificates: vec![],
            subscribed: true,
        }
    }

    fn told(status: Result<Status, ClientError>, daemon_runs: bool) -> Vec<Finding> {
        let place = Place::in_data_dir(Path::new("/srv/coppice"));
        let around = Around {
            daemon_runs,
            connects: true,
            place: &place,
            certificates: Path::new("/srv/coppice/certificates"),
            zone: "coppice.internal",
        };
        findings(status, &around)
    }

    fn warnings(found: &[Finding]) -> Vec<&str> {
        let bad = found.iter().filter(|one| one.grade != Grade::Ok);
        bad.map(|one| one.found.as_str()).collect()
    }

    #[test]
    fn an_edge_in_order_says_where_it_serves() {
        let found = told(Ok(status()), true);
        assert_eq!(warnings(&found), Vec::<&str>::new());
        assert!(found[0].found.contains("0.0.0.0:80 (ingress)"), "{found:?}");
        assert!(found[1].found.contains("10.208.0.1:4954"), "{found:?}");
    }

    #[test]
    fn each_fault_of_an_edge_is_told() {
        let broken = Status {
            listeners: vec![],
            missing: vec![Rejected::PortInUse {
                protocol: Protocol::Tcp,
                address: "0.0.0.0:80".parse().unwrap(),
                wanted_by: "web/0".to_owned(),
            }],
            certificates: vec![CertificateState {
                name: "shop".to_owned(),
                covers: vec![],
                problem: Some("the key does not fit".to_owned()),
            }],
            subscribed: false,
            ..status()
        };
        let found = told(Ok(broken.clone()), true);
        let warnings = warnings(&found);
        for (words, warning) in [
            "0.0.0.0:80",
            "shop: the key does not fit",
            "names may not resolve",
            "allow-list",
        ]
        .iter()
        .zip(&warnings)
        {
            assert!(warning.contains(words), "{warnings:?}");
        }
        assert_eq!(warnings.len(), 4);
        // Nobody subscribes while the daemon is away.
        assert_eq!(self::warnings(&told(Ok(broken), false)).len(), 3);
        let blank = Status {
            revision: None,
            ..status()
        };
        assert_eq!(self::warnings(&told(Ok(blank), true)).len(), 1);
    }

    #[test]
    fn an_edge_is_missed_only_by_a_daemon_that_runs() {
        let gone = || ClientError::Io {
            socket: "/srv/coppice/edge/edge.sock".into(),
            source: io::ErrorKind::NotFound.into(),
        };
        assert_eq!(warnings(&told(Err(gone()), false)), Vec::<&str>::new());
        let missed = told(Err(gone()), true);
        assert_eq!(missed[0].grade, Grade::Warning);
        assert!(missed[0].remedy.as_deref().unwrap().contains("edge.log"));
        let silent = ClientError::Silent("/srv/coppice/edge/edge.sock".into());
        let found = told(Err(silent), false);
        assert!(found[0].remedy.as_deref().unwrap().contains("edge.lock"));
    }
}
