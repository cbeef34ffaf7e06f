//! What `doctor` says about networks, ingress and names. The daemon may run meanwhile, or not.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use ::network::linux::{self, Prospect};
use ::network::{Lack, Leftover, NetworkError};
use edge::Place;

use super::{Finding, edge as of_edge, missing, ok, warning};
use crate::app::{RUN_ROOT, network_names};
use crate::config::{Config, NetworkMode};
use crate::instances::{Layout, chain};

/// Objects that are named before it is said how many more there are.
const NAMED: usize = 3;

pub(super) async fn examine(config: &Config, layout: &Layout) -> Vec<Finding> {
    let names = match network_names(layout) {
        Ok(names) => names,
        Err(error) => {
            let remedy = format!("correct or remove {}", layout.mark().display());
            return vec![warning("network", format!("{error:#}"), &remedy)];
        }
    };
    let lacks = linux::check();
    let connects = config.network.mode == NetworkMode::Auto && !lacks.iter().any(|one| one.fatal);
    let configured = config.network.pool.is_some();
    let mut findings = match config.network.mode {
        NetworkMode::Off => vec![ok(
            "network",
            "switched off by the configuration: instances have none".to_owned(),
        )],
        NetworkMode::Auto => {
            let pool = connects.then(|| linux::prospect(names.as_ref(), config.network.pool));
            host(lacks, pool, configured)
        }
    };
    let own = names.as_ref().map(|names| names.mark().as_str());
    let found = linux::leftovers(RUN_ROOT.as_ref());
    findings.extend(leftovers(found, own, layout));
    let place = Place::in_data_dir(&config.data_dir);
    let around = of_edge::Around {
        daemon_runs: UnixStream::connect(&config.socket).is_ok(),
        connects,
        place: &place,
        certificates: &config.network.certificates,
        zone: &config.network.zone,
    };
    let status = edge::Client::new(place.socket()).status().await;
    findings.extend(of_edge::findings(status, &around));
    findings
}

/// The host itself; `pool` is there if it lacks nothing.
fn host(
    lacks: Vec<Lack>,
    pool: Option<Result<Prospect, NetworkError>>,
    configured: bool,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = lacks
        .into_iter()
        .map(|lack| match lack.fatal {
            true => unconnected(lack.what, &lack.remedy, configured),
            false => warning("network", lack.what, &lack.remedy),
        })
        .collect();
    match pool {
        None => {}
        Some(Ok(Prospect::Claimed(pool))) => findings.push(ok(
            "network",
            format!(
                "instances have addresses of {pool}, this host {}",
                pool.host()
            ),
        )),
        Some(Ok(Prospect::Free(pool))) => findings.push(ok(
            "network",
            format!("instances will have addresses of {pool}, which is free"),
        )),
        Some(Err(error)) => findings.push(unconnected(
            chain(&error),
            "set network_pool to a block of private addresses that nothing here uses",
            configured,
        )),
    }
    findings
}

/// A pool that was asked for is not left out in silence: the daemon does not start without.
fn unconnected(why: String, remedy: &str, configured: bool) -> Finding {
    if configured {
        let found = format!("{why}: coppiced does not start, since network_pool is configured");
        missing("network", found, remedy)
    } else {
        warning("network", format!("{why}: instances have none"), remedy)
    }
}

fn leftovers(
    found: Result<Vec<Leftover>, NetworkError>,
    own: Option<&str>,
    layout: &Layout,
) -> Vec<Finding> {
    let found = match found {
        Ok(found) => found,
        Err(error) => return vec![warning("leftovers", chain(&error), "run this as root")],
    };
    let mut by_mark: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for object in found {
        by_mark.entry(object.mark).or_default().push(object.name);
    }
    if by_mark.is_empty() {
        return vec![ok(
            "leftovers",
            "none on the network of this host".to_owned(),
        )];
    }
    let of_mark = |(mark, names): (String, Vec<String>)| {
        let what = listed(&names);
        if own == Some(mark.as_str()) {
            let remedy = format!(
                "start coppiced, which takes them over, or remove them: coppiced teardown --data-dir {}",
                layout.root().display()
            );
            let found = format!("{what} of this data directory, whose daemon does not run");
            return warning("leftovers", found, &remedy);
        }
        let remedy = format!(
            "start that daemon, or remove them: coppiced teardown --data-dir DIR, where the file \
             network.mark in DIR says {mark}; if there is none any more, write one into an empty directory"
        );
        let found = format!("{what} of a daemon that does not run, mark {mark}");
        warning("leftovers", found, &remedy)
    };
    by_mark.into_iter().map(of_mark).collect()
}

fn listed(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use ::network::LeftoverKind;

    use super::*;
    use crate::doctor::{Grade, healthy};

    fn lack(fatal: bool) -> Lack {
        Lack {
            what: "the program nft is not installed".to_owned(),
            remedy: "install the package nftables".to_owned(),
            fatal,
        }
    }

    #[test]
    fn instances_run_without_a_network_unless_one_was_asked_for() {
        let found = host(vec![lack(true)], None, false);
        assert!(healthy(&found), "{found:?}");
        assert_eq!(found[0].grade, Grade::Warning);
        assert_eq!(
            found[0].remedy.as_deref(),
            Some("install the package nftables")
        );
        assert!(!healthy(&host(vec![lack(true)], None, true)));
        let clash = || NetworkError::PoolClash {
            pool: "10.208.0.0/16".to_owned(),
            with: "the route to 10.0.0.0/8".to_owned(),
        };
        let found = host(vec![], Some(Err(clash())), true);
        assert!(!healthy(&found));
        assert!(found[0].found.contains("10.0.0.0/8"), "{found:?}");
        assert!(healthy(&host(vec![], Some(Err(clash())), false)));
    }

    #[test]
    fn the_pool_is_told_beside_what_is_in_the_way() {
        let pool = "10.209.0.0/16".parse().unwrap();
        let found = host(vec![lack(false)], Some(Ok(Prospect::Claimed(pool))), true);
        let grades: Vec<Grade> = found.iter().map(|one| one.grade).collect();
        assert_eq!(grades, [Grade::Warning, Grade::Ok]);
        assert!(found[1].found.contains("10.209.0.1"), "{found:?}");
    }

    #[test]
    fn leftovers_are_told_apart_by_their_daemon() {
        let layout = Layout::new("/srv/coppice");
        let object = |mark: &str, number| Leftover {
            kind: LeftoverKind::Link,
            name: format!("cp{mark}{number}"),
            mark: mark.to_owned(),
        };
        let mut found: Vec<Leftover> = (2..7).map(|number| object("00c0ffee", number)).collect();
        found.push(object("0badcafe", 2));
        let told = leftovers(Ok(found), Some("0badcafe"), &layout);
        assert_eq!(told.len(), 2);
        assert!(told[0].found.contains("cp00c0ffee4 and 2 more"), "{told:?}");
        assert!(told[0].found.contains("mark 00c0ffee"), "{told:?}");
        let remedy = told[1].remedy.as_deref().unwrap();
        assert!(
            remedy.ends_with("coppiced teardown --data-dir /srv/coppice"),
            "{remedy}"
        );
        let none = leftovers(Ok(vec![]), None, &layout);
        assert_eq!((none.len(), none[0].grade), (1, Grade::Ok));
    }
}
