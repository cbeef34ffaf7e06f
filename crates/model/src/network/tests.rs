use super::*;

fn list(domains: &[&str]) -> Policy {
    Policy {
        egress: Egress::AllowList {
            cidrs: vec![],
            domains: domains.iter().map(ToString::to_string).collect(),
        },
        ..Policy::default()
    }
}

fn port(host_ip: Option<[u8; 4]>, host_port: u16) -> Publish {
    Publish {
        protocol: Protocol::Tcp,
        host_ip: host_ip.map(Ipv4Addr::from),
        host_port,
        guest_port: 80,
    }
}

fn publishing(publish: Vec<Publish>) -> Policy {
    Policy {
        publish,
        ..Policy::default()
    }
}

#[test]
fn a_star_means_what_is_below_and_a_name_means_itself() {
    let policy = list(&["example.com", "*.Pkg.dev"]);
    for (name, allowed) in [
        ("example.com", true),
        ("EXAMPLE.com.", true),
        ("www.example.com", false),
        ("a.pkg.dev", true),
        ("a.b.pkg.dev.", true),
        ("pkg.dev", false),
        ("evilpkg.dev", false),
        (".pkg.dev", false),
    ] {
        assert_eq!(policy.may_resolve(name), allowed, "{name}");
    }
}

#[test]
fn without_egress_nothing_outside_is_resolved() {
    let none = Policy {
        egress: Egress::None,
        ..Policy::default()
    };
    assert!(!none.may_resolve("example.com"));
    assert!(Policy::default().may_resolve("example.com"));
}

#[test]
fn what_cannot_work_is_refused() {
    assert_eq!(
        list(&["exa mple.com"]).validate(),
        Err(BadPolicy::Domain("exa mple.com".into()))
    );
    assert_eq!(list(&["*"]).validate(), Err(BadPolicy::Domain("*".into())));
    assert_eq!(list(&["*.io"]).validate(), Ok(()));
    let slow = Policy {
        bandwidth: Bandwidth {
            upload: Some(8),
            download: None,
        },
        ..Policy::default()
    };
    assert_eq!(slow.validate(), Err(BadPolicy::Rate(8)));
    assert_eq!(
        publishing(vec![port(None, 0)]).validate(),
        Err(BadPolicy::Port)
    );
    let group = publishing(vec![port(Some([224, 0, 0, 1]), 80)]);
    assert!(matches!(group.validate(), Err(BadPolicy::HostIp(_))));
}

#[test]
fn a_port_of_a_loopback_address_is_local() {
    let local = port(Some([127, 0, 0, 1]), 80);
    assert!(local.is_local());
    assert!(!port(None, 80).is_local());
    assert_eq!(publishing(vec![local]).validate(), Ok(()));
    // All addresses are that one too.
    let clash = publishing(vec![port(None, 80), local]);
    assert_eq!(clash.validate(), Err(BadPolicy::Twice(80, Protocol::Tcp)));
}

#[test]
fn a_port_on_all_addresses_conflicts_with_it_on_one() {
    let one = [192, 0, 2, 1];
    let other = [192, 0, 2, 2];
    let both = publishing(vec![port(Some(one), 80), port(Some(other), 80)]);
    assert_eq!(both.validate(), Ok(()));
    let clash = publishing(vec![port(None, 80), port(Some(one), 80)]);
    assert_eq!(clash.validate(), Err(BadPolicy::Twice(80, Protocol::Tcp)));
}

#[test]
fn a_policy_survives_its_record() {
    let mut policy = list(&["example.com"]);
    policy.publish.push(port(None, 8080));
    policy.allow.push("10.1.0.0/16".parse().unwrap());
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
    assert_eq!(
        serde_json::from_str::<Policy>("{}").unwrap(),
        Policy::default()
    );
}

#[test]
fn a_tag_names_the_group_and_forks_inherit_no_ports() {
    let spec = NetworkSpec {
        enabled: true,
        policy: publishing(vec![port(None, 80)]),
    };
    let tagged = |value: &str| Tags::from([(GROUP_TAG.to_owned(), value.to_owned())]);
    assert_eq!(spec.policy_in(&tagged("web")).group.as_deref(), Some("web"));
    assert_eq!(spec.policy_in(&tagged("")).group, None);
    assert_eq!(spec.policy_in(&Tags::new()), spec.policy);
    let heir = spec.inherited();
    assert!(heir.enabled && heir.policy.publish.is_empty());
}

#[test]
fn a_patch_changes_what_it_names_alone() {
    let policy = publishing(vec![port(None, 80)]);
    assert_eq!(PolicyPatch::default().applied_to(&policy), policy);
    let patch = PolicyPatch {
        upload: Some(Some(1_000_000)),
        egress: Some(Egress::None),
        publish: Some(vec![]),
        ..PolicyPatch::default()
    };
    let changed = patch.applied_to(&policy);
    assert_eq!(changed.bandwidth.upload, Some(1_000_000));
    assert_eq!((changed.egress, changed.publish), (Egress::None, vec![]));
    let lifted = PolicyPatch {
        upload: Some(None),
        ..PolicyPatch::default()
    };
    assert_eq!(
        lifted.applied_to(&patch.applied_to(&policy)).bandwidth,
        Bandwidth::default()
    );
}
