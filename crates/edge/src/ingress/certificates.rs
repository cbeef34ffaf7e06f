//! Certificates: read from files or the document, found by host name.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::config::{Certificate, CertificateSource, Rejected, Rule};
use crate::control::CertificateState;

/// What tells that a file changed: time of change and length.
type Stamp = Option<(SystemTime, u64)>;

/// All certificates in use.
pub(crate) struct Certificates {
    loaded: Vec<Loaded>,
    states: Vec<CertificateState>,
    /// By host name; wildcards by what follows their asterisk, with the dot.
    exact: HashMap<String, Arc<CertifiedKey>>,
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    looked_at: Instant,
}

#[derive(Clone)]
struct Loaded {
    stamps: [Stamp; 2],
    /// The chain, the key and the names; `None` if they could not be read at the start.
    usable: Option<(Arc<CertifiedKey>, Vec<String>)>,
    problem: Option<String>,
}

impl Default for Certificates {
    fn default() -> Self {
        Self::index(&[], Vec::new())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.states).finish()
    }
}

impl Certificates {
    /// Reads all of them, or says which one cannot be used.
    pub(crate) fn load(wanted: &[Certificate]) -> Result<Self, Rejected> {
        let loaded: Vec<_> = wanted.iter().map(|one| Loaded::read(&one.source)).collect();
        for (one, loaded) in wanted.iter().zip(&loaded) {
            if let Some(reason) = &loaded.problem {
                return Err(Rejected::Certificate {
                    certificate: one.name.clone(),
                    reason: reason.clone(),
                });
            }
        }
        Ok(Self::index(wanted, loaded))
    }

    /// Reads those that can be read.
    pub(crate) fn load_what_can_be(wanted: &[Certificate]) -> Self {
        let loaded = wanted.iter().map(|one| Loaded::read(&one.source)).collect();
        Self::index(wanted, loaded)
    }

    /// Reads again those whose files changed. What cannot be used any more stays as it was.
    pub(crate) fn reload(&self, wanted: &[Certificate]) -> Self {
        let mut loaded = self.loaded.clone();
        for (one, loaded) in wanted.iter().zip(&mut loaded) {
            if stamps(&one.source) == loaded.stamps {
                continue;
            }
            let next = Loaded::read(&one.source);
            match &next.problem {
                None => tracing::info!(certificate = one.name, "a certificate changed"),
                Some(problem) => {
                    tracing::warn!(
                        certificate = one.name,
                        problem,
                        "a changed certificate is not used"
                    );
                }
            }
            let usable = next.usable.or(loaded.usable.take());
            *loaded = Loaded { usable, ..next };
        }
        Self::index(wanted, loaded)
    }

    fn index(wanted: &[Certificate], loaded: Vec<Loaded>) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        let mut states = Vec::new();
        for (one, loaded) in wanted.iter().zip(&loaded) {
            let mut covers = Vec::new();
            if let Some((key, names)) = &loaded.usable {
                covers.clone_from(names);
                for name in names {
                    // The first in the document wins.
                    match name.strip_prefix('*') {
                        Some(parent) => wildcard.entry(parent.to_owned()),
                        None => exact.entry(name.clone()),
                    }
                    .or_insert_with(|| Arc::clone(key));
                }
            }
            states.push(CertificateState {
                name: one.name.clone(),
                covers,
                problem: loaded.problem.clone(),
            });
        }
        Self {
            loaded,
            states,
            exact,
            wildcard,
            looked_at: Instant::now(),
        }
    }

    pub(crate) fn states(&self) -> &[CertificateState] {
        &self.states
    }

    /// Whether it is time to look at the files again.
    pub(crate) fn is_due(&self, every: Duration) -> bool {
        !self.loaded.is_empty() && self.looked_at.elapsed() >= every
    }

    /// The certificate for a host name in lower case.
    pub(crate) fn find(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let parent = || {
            host.find('.')
                .and_then(|dot| self.wildcard.get(&host[dot..]))
        };
        self.exact.get(host).or_else(parent)
    }

    /// Whether every rule with TLS has a certificate.
    pub(crate) fn cover(&self, rules: &[Rule]) -> Result<(), Rejected> {
        let bare = |rule: &&Rule| rule.tls && self.find(&rule.hostname.example()).is_none();
        match rules.iter().find(bare) {
            None => Ok(()),
            Some(rule) => Err(Rejected::NoCertificate {
                rule: rule.id.clone(),
                hostname: rule.hostname.to_string(),
            }),
        }
    }
}

impl Loaded {
    fn read(source: &CertificateSource) -> Self {
        // Before the bytes, so that a change while they are read is seen at the next look.
        let stamps = stamps(source);
        let (usable, problem) = match read(source) {
            Ok(usable) => (Some(usable), None),
            Err(problem) => (None, Some(problem)),
        };
        Self {
            stamps,
            usable,
            problem,
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn stamps(source: &CertificateSource) -> [Stamp; 2] {
    match source {
        CertificateSource::Files { chain, key } => [stamp(chain), stamp(key)],
        CertificateSource::Inline { .. } => [None, None],
    }
}

fn read(source: &CertificateSource) -> Result<(Arc<CertifiedKey>, Vec<String>), String> {
    let file = |path: &Path| {
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    match source {
        CertificateSource::Files { chain, key } => parse(&file(chain)?, &file(key)?),
        CertificateSource::Inline { chain_pem, key_pem } => {
            parse(chain_pem.as_bytes(), key_pem.as_bytes())
        }
    }
}

fn parse(chain: &[u8], key: &[u8]) -> Result<(Arc<CertifiedKey>, Vec<String>), String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("the chain is no PEM: {error}"))?;
    let leaf = chain.first().ok_or("the chain has no CERTIFICATE block")?;
    let names = names(leaf)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("the key is no PEM of an unencrypted private key: {error}"))?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| format!("the certificate and the key cannot be used: {error}"))?;
    Ok((Arc::new(certified), names))
}

fn names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let certificate = webpki::EndEntityCert::try_from(leaf)
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let names: Vec<_> = certificate
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect();
    if names.is_empty() {
        return Err("the certificate has no DNS name in its subject alternative names".to_owned());
    }
    Ok(names)
}
