//! The body of every answer that is not a success.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a request was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// A word for programs; see [`codes`].
    #[schema(examples("invalid_state"))]
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Single faults, when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Vec<ErrorDetail>>,
    /// What lies beneath, when that is worth telling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_error: Option<ErrorDetail>,
}

/// One fault within an [`ErrorBody`] or a fan-out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// A word for programs; see [`codes`].
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl ErrorBody {
    /// A body with neither details nor an inner error.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            details: None,
            inner_error: None,
        }
    }
}

/// The codes that clients may rely on.
///
/// Codes given before a handler runs by authentication and schema checks are
/// HTTP reason phrases; all others are snake case.
pub mod codes {
    /// 400: the request does not fit the schema, an unknown field included.
    pub const BAD_REQUEST: &str = "Bad Request";
    /// 401: no token, or one that does not hold.
    pub const UNAUTHORIZED: &str = "Unauthorized";
    /// 403: the token lacks the scope that the message names.
    pub const FORBIDDEN: &str = "Forbidden";

    /// 400: the values of a request contradict each other or are impossible.
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// 400: a name or image reference that does not parse.
    pub const INVALID_NAME: &str = "invalid_name";
    /// 400: a platform that is unknown or cannot be run here.
    pub const INVALID_PLATFORM: &str = "invalid_platform";
    /// 400: a memory size that does not parse or is out of bounds.
    pub const INVALID_SIZE: &str = "invalid_size";
    /// 400: a disk size that does not parse or is out of bounds.
    pub const INVALID_OVERLAY_SIZE: &str = "invalid_overlay_size";
    /// 400: a rate that does not parse or is out of bounds.
    pub const INVALID_BANDWIDTH_DOWNLOAD: &str = "invalid_bandwidth_download";
    /// 400: a rate that does not parse or is out of bounds.
    pub const INVALID_BANDWIDTH_UPLOAD: &str = "invalid_bandwidth_upload";
    /// 400: a time to live that does not parse.
    pub const INVALID_TTL: &str = "invalid_ttl";
    /// 400: an expiry that is not in the future.
    pub const INVALID_EXPIRES_AT: &str = "invalid_expires_at";
    /// 400: a way to write memory images that is impossible here.
    pub const INVALID_SNAPSHOT_COMPRESSION: &str = "invalid_snapshot_compression";
    /// 400: a delay of compression that does not parse, or that this server does not have.
    pub const INVALID_COMPRESSION_DELAY: &str = "invalid_compression_delay";
    /// 400: the same in an instance's policy.
    pub const INVALID_SNAPSHOT_POLICY: &str = "invalid_snapshot_policy";
    /// 400: a wait that does not parse or is not positive.
    pub const INVALID_TIMEOUT: &str = "invalid_timeout";
    /// 400: the image is known but cannot be run yet.
    pub const IMAGE_NOT_READY: &str = "image_not_ready";
    /// 400: the name is taken (create).
    pub const ALREADY_EXISTS: &str = "already_exists";

    /// 400: the target of an ingress is no instance.
    pub const INSTANCE_NOT_FOUND: &str = "instance_not_found";
    /// 400: no certificate of this server covers the host name.
    pub const DOMAIN_NOT_ALLOWED: &str = "domain_not_allowed";
    /// 400: a rule of an ingress that cannot be served.
    pub const CONFIG_VALIDATION_FAILED: &str = "config_validation_failed";
    /// 400: the command that a new fork runs before it is announced failed.
    pub const POST_FORK_FAILED: &str = "post_fork_failed";

    /// 404: no such instance, image or path.
    pub const NOT_FOUND: &str = "not_found";
    /// 404: the image exists, though not for this platform.
    pub const PLATFORM_NOT_AVAILABLE: &str = "platform_not_available";
    /// 404: this log was never written.
    pub const LOG_NOT_FOUND: &str = "log_not_found";

    /// 405: the path is known, though not with this method.
    pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";

    /// 409: the operation is refused in the instance's state; with
    /// `x-should-retry: false` the state will not change by waiting.
    pub const INVALID_STATE: &str = "invalid_state";
    /// 409: the id prefix fits several resources.
    pub const AMBIGUOUS: &str = "ambiguous";
    /// 409: the name is taken (fork).
    pub const NAME_CONFLICT: &str = "name_conflict";
    /// 409: in use, or changed by somebody else meanwhile.
    pub const CONFLICT: &str = "conflict";
    /// 409: the host has not enough memory, processors or disk left.
    pub const INSUFFICIENT_RESOURCES: &str = "insufficient_resources";
    /// 409: another ingress answers for the host name on this port.
    pub const HOSTNAME_IN_USE: &str = "hostname_in_use";
    /// 409: a port of the host is in use, by another instance or by a process.
    pub const PORT_IN_USE: &str = "port_in_use";
    /// 409: the expiry of the instance has passed already.
    pub const INSTANCE_EXPIRED: &str = "instance_expired";
    /// 409: a memory image that is damaged or does not fit this host.
    pub const IMAGE_MISMATCH: &str = "image_mismatch";

    /// 429: too many requests.
    pub const RATE_LIMITED: &str = "rate_limited";
    /// 500: a fault of the server.
    pub const INTERNAL_ERROR: &str = "internal_error";
    /// 500: a program that the server needs is missing on the host.
    pub const DEPENDENCY_MISSING: &str = "dependency_missing";
    /// 501: this runtime cannot do that.
    pub const NOT_SUPPORTED: &str = "not_supported";
}
