//! Whether a document contradicts itself; no IO.

use std::collections::HashSet;

use super::{Config, FORMAT_VERSION, HostPattern, Hostname, InstanceRef, Rejected, Rule};

/// A reason to reject the document, if there is one.
pub(crate) fn check(config: &Config) -> Result<(), Rejected> {
    if config.format != FORMAT_VERSION {
        return Err(Rejected::Format {
            given: config.format,
            known: FORMAT_VERSION,
        });
    }
    let mut ids = HashSet::new();
    for rule in &config.ingress.rules {
        check_rule(rule).map_err(|reason| wrong(&rule.id, &reason))?;
        if !ids.insert(rule.id.as_str()) {
            return Err(wrong(&rule.id, "the id is used twice"));
        }
    }
    check_hostnames(config)?;
    for forward in &config.forwards {
        if matches!(forward.target.instance, InstanceRef::Captured(_)) {
            return Err(wrong(
                &forward.id,
                "a forward has no host name to capture an instance from",
            ));
        }
        if forward.listen.port() == 0 || forward.target.port == 0 {
            return Err(wrong(&forward.id, "a port is 1 to 65535"));
        }
    }
    if config.dns.zone.parse::<Hostname>().is_err() {
        return Err(wrong("dns", "the zone is no domain name"));
    }
    if let Some(wake) = &config.wake
        && !(wake.path.starts_with('/') && wake.path.contains("{id}"))
    {
        return Err(wrong("wake", "the path needs {id} in it and starts with /"));
    }
    Ok(())
}

fn wrong(rule: &str, reason: &str) -> Rejected {
    Rejected::Rule {
        rule: rule.to_owned(),
        reason: reason.to_owned(),
    }
}

fn check_rule(rule: &Rule) -> Result<(), String> {
    if rule.port == 0 || rule.target.port == 0 {
        return Err("a port is 1 to 65535".to_owned());
    }
    if rule.redirect_http && !rule.tls {
        return Err("redirect_http needs tls".to_owned());
    }
    match (&rule.target.instance, rule.hostname.capture()) {
        (InstanceRef::Captured(wanted), Some(capture)) if wanted == capture => Ok(()),
        (InstanceRef::Captured(wanted), _) => {
            let hostname = &rule.hostname;
            Err(format!(
                "the target uses {{{wanted}}}, which {hostname} does not capture"
            ))
        }
        (InstanceRef::Literal(_), _) => Ok(()),
    }
}

/// The names and ports that a rule answers for.
fn claims(rule: &Rule, http_port: u16) -> impl Iterator<Item = (&HostPattern, u16)> {
    let redirect = (rule.redirect_http && http_port != rule.port).then_some(http_port);
    std::iter::once(rule.port)
        .chain(redirect)
        .map(|port| (&rule.hostname, port))
}

fn check_hostnames(config: &Config) -> Result<(), Rejected> {
    let http_port = config.ingress.http_port;
    let mut taken: Vec<(&HostPattern, u16, &Rule)> = Vec::new();
    let mut literals = std::collections::HashMap::new();
    for rule in &config.ingress.rules {
        for (hostname, port) in claims(rule, http_port) {
            let other = match hostname {
                HostPattern::Literal(name) => literals.insert((name, port), rule),
                HostPattern::Capture { .. } => {
                    let same = |(one, at, _): &&(&HostPattern, u16, &Rule)| {
                        *at == port && one.same_names(hostname)
                    };
                    let other = taken.iter().find(same).map(|(_, _, rule)| *rule);
                    taken.push((hostname, port, rule));
                    other
                }
            };
            if let Some(other) = other {
                return Err(Rejected::HostnameInUse {
                    rule: rule.id.clone(),
                    other: other.id.clone(),
                    hostname: hostname.to_string(),
                    port,
                });
            }
        }
    }
    Ok(())
}
