//! TLS with clients.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::Certificates;
use crate::live::Shared;

/// HTTP/2 on the wire, as ALPN calls it.
pub(super) const H2: &[u8] = b"h2";

/// How TLS is spoken; the certificates are looked up for every handshake.
pub(crate) struct TlsSettings(Arc<ServerConfig>);

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSettings")
    }
}

impl TlsSettings {
    pub(crate) fn new(certificates: Arc<Shared<Certificates>>) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let mut config = builder
            .with_safe_default_protocol_versions()
            // The versions are those the provider was built with.
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(BySni(certificates)));
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        Self(Arc::new(config))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct BySni(Arc<Shared<Certificates>>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        self.0.get().find(&name).cloned()
    }
}
