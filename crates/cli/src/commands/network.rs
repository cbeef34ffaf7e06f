//! What the arguments about the network stand for.

use std::collections::BTreeMap;

use api::instances::{EgressMode, EgressRequest, NetworkRequest};

use crate::args::{ChangedNetworkArgs, EgressArg, NetworkArgs, NewNetworkArgs};
use crate::failure::Failure;

/// The label whose value names the group of an instance.
pub(super) const GROUP_TAG: &str = "network";

/// What stands for no limit on the wire, and on the command line.
const NO_LIMIT: (&str, &str) = ("", "none");

/// What is said about the network of a new instance; nothing at all when nothing was given.
pub(super) fn of_new(args: NewNetworkArgs) -> Result<Option<NetworkRequest>, Failure> {
    let enabled = match (args.network, args.no_network) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        (false, false) => None,
    };
    Ok(something(NetworkRequest {
        enabled,
        ..policy(args.policy)?
    }))
}

/// What is to differ from what was. `unpublish` takes all ports back.
pub(super) fn of_changed(
    args: ChangedNetworkArgs,
    unpublish: bool,
) -> Result<Option<NetworkRequest>, Failure> {
    let mut request = policy(args.policy)?;
    if args.no_allow {
        request.allow = Some(Vec::new());
    }
    if unpublish {
        request.publish = Some(Vec::new());
    }
    Ok(something(request))
}

fn something(request: NetworkRequest) -> Option<NetworkRequest> {
    (request != NetworkRequest::default()).then_some(request)
}

fn policy(args: NetworkArgs) -> Result<NetworkRequest, Failure> {
    let given = |list: Vec<String>| (!list.is_empty()).then_some(list);
    Ok(NetworkRequest {
        enabled: None,
        bandwidth_download: args.bandwidth_down.map(limit),
        bandwidth_upload: args.bandwidth_up.map(limit),
        egress: egress(args.egress, args.egress_cidr, args.egress_domain)?,
        allow: given(args.allow),
        publish: (!args.publish.is_empty()).then_some(args.publish),
    })
}

fn limit(rate: String) -> String {
    let (wire, word) = NO_LIMIT;
    if rate == word { wire.to_owned() } else { rate }
}

/// A list stands for the mode that has one.
fn egress(
    mode: Option<EgressArg>,
    cidrs: Vec<String>,
    domains: Vec<String>,
) -> Result<Option<EgressRequest>, Failure> {
    let listed = !cidrs.is_empty() || !domains.is_empty();
    let mode = match mode {
        Some(EgressArg::Open | EgressArg::None) if listed => {
            return Err(Failure::usage(
                "--egress-cidr and --egress-domain go with --egress allow-list",
            ));
        }
        Some(EgressArg::Open) => EgressMode::Open,
        Some(EgressArg::None) => EgressMode::None,
        Some(EgressArg::AllowList) => EgressMode::AllowList,
        None if listed => EgressMode::AllowList,
        None => return Ok(None),
    };
    Ok(Some(EgressRequest {
        mode: Some(mode),
        cidrs,
        domains,
        ..EgressRequest::default()
    }))
}

/// The labels of a new instance, its group among them.
pub(super) fn labelled(
    given: BTreeMap<String, String>,
    group: Option<String>,
) -> Result<BTreeMap<String, String>, Failure> {
    let regroup = group.map_or(Regroup::Stay, Regroup::Join);
    let labels = regroup.labels(Some(&given), &BTreeMap::new())?;
    Ok(labels.unwrap_or_default())
}

/// A change of the group, which is a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Regroup {
    Stay,
    Join(String),
    Leave,
}

impl Regroup {
    pub(super) fn of(args: &ChangedNetworkArgs) -> Self {
        match &args.policy.group {
            Some(group) => Self::Join(group.clone()),
            None if args.no_group => Self::Leave,
            None => Self::Stay,
        }
    }

    /// Labels as they are to be, for a server that replaces all of them; `None` leaves them as
    /// they are. Of the present ones only what stays is sent back, so they are asked for only
    /// when they matter.
    pub(super) fn labels(
        &self,
        given: Option<&BTreeMap<String, String>>,
        present: &BTreeMap<String, String>,
    ) -> Result<Option<BTreeMap<String, String>>, Failure> {
        let mut labels = match (given, self) {
            (None, Self::Stay) => return Ok(None),
            (None, Self::Join(_) | Self::Leave) => present.clone(),
            (Some(given), _) => {
                refuse_two_groups(given, self)?;
                given.clone()
            }
        };
        match self {
            Self::Stay => {}
            Self::Join(group) => {
                labels.insert(GROUP_TAG.to_owned(), group.clone());
            }
            Self::Leave => {
                labels.remove(GROUP_TAG);
            }
        }
        Ok(Some(labels))
    }

    /// Whether [`Regroup::labels`] looks at the present ones.
    pub(super) fn needs_present(&self, given: Option<&BTreeMap<String, String>>) -> bool {
        given.is_none() && *self != Self::Stay
    }
}

fn refuse_two_groups(given: &BTreeMap<String, String>, regroup: &Regroup) -> Result<(), Failure> {
    let labelled = given.get(GROUP_TAG).map(String::as_str);
    let contradicts = match regroup {
        Regroup::Stay => false,
        Regroup::Join(group) => labelled.is_some_and(|other| other != group),
        Regroup::Leave => labelled.is_some(),
    };
    if contradicts {
        return Err(Failure::usage(format!(
            "the group is the label {GROUP_TAG}; give it once"
        )));
    }
    Ok(())
}
