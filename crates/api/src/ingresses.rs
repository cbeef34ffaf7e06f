//! Ingress: requests for host names that lead to instances.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Rules that lead requests from outside to instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ingress {
    /// 24 lower-case letters and digits, a letter first.
    pub id: String,
    /// Unique among the ingresses of this server.
    pub name: String,
    /// Its rules.
    pub rules: Vec<IngressRule>,
    /// Labels given by users.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// `POST /ingresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateIngressRequest {
    /// Lower-case letters, digits and dashes, 1 to 63, no dash at the ends.
    pub name: String,
    /// At least one.
    pub rules: Vec<IngressRule>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// Which requests go where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IngressRule {
    /// Which requests.
    #[serde(rename = "match")]
    pub matches: IngressMatch,
    /// Where they go.
    pub target: IngressTarget,
    /// Clients speak TLS; the server has a certificate for the host name.
    #[serde(default)]
    pub tls: bool,
    /// Requests without TLS are sent to the same address with it. Needs `tls`.
    #[serde(default)]
    pub redirect_http: bool,
    /// A header that requests must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_auth: Option<RequestHeaderAuth>,
    /// A request for an instance in Standby wakes it and is held until it answers. An extension of
    /// coppice.
    #[serde(default)]
    pub wake: bool,
}

/// Which requests are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IngressMatch {
    /// Host name, or a pattern with one capture such as `{instance}.example.com`.
    #[schema(examples("{instance}.example.com"))]
    pub hostname: String,
    /// Port of the host.
    #[serde(default = "http_port")]
    #[schema(default = 80, minimum = 1)]
    pub port: u16,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IngressTarget {
    /// Id or name of an instance, or the capture of the host name such as `{instance}`.
    pub instance: String,
    /// Port of the instance.
    #[schema(minimum = 1)]
    pub port: u16,
}

/// A header that requests must have; it is taken away before the instance sees them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestHeaderAuth {
    /// Name of the header.
    pub header: String,
    /// What it must be: 32 to 256 printable ASCII characters without spaces, `*`, `{` and `}`.
    pub value: String,
}

impl std::fmt::Debug for RequestHeaderAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestHeaderAuth({}: …)", self.header)
    }
}

fn http_port() -> u16 {
    80
}
