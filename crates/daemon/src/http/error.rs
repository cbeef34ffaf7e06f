//! The only place where an error becomes an HTTP answer.

use api::error::{ErrorBody, ErrorDetail, codes};
use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use edge::Rejected;
use hypervisor::VmmError;
use images::ImportError;
use memory::ImageError;
use model::{Refusal, RefusalKind};
use network::NetworkError;
use pager::PagerError;
use tracing::error;

use crate::edge::EdgeError;
use crate::images::ImagesError;
use crate::ingress::IngressError;
use crate::instances::{OpError, chain};
use crate::store::StoreError;

/// Tells clients of the public SDKs whether sending the request again can help.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// What the retry header says; none = no header.
    retry: Option<bool>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry: None,
        }
    }

    /// Says that the same request cannot succeed later.
    fn for_good(mut self) -> Self {
        self.retry = Some(false);
        self
    }

    /// 400: the request does not fit the schema.
    pub(crate) fn schema(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, codes::BAD_REQUEST, message)
    }

    /// 400 with a code that names what is wrong.
    pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 401.
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, codes::UNAUTHORIZED, message)
    }

    /// 403 that names the scope.
    pub(crate) fn missing_scope(scope: &str) -> Self {
        let message = format!("missing required scope: {scope}");
        Self::new(StatusCode::FORBIDDEN, codes::FORBIDDEN, message)
    }

    /// 404.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, codes::NOT_FOUND, message)
    }

    /// 404 for a log.
    pub(crate) fn no_log(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, codes::LOG_NOT_FOUND, message)
    }

    /// 409 of the state.
    pub(crate) fn state(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, codes::INVALID_STATE, message).for_good()
    }

    /// 404 with the name of the operation that is missing at this path.
    pub(crate) fn no_route(method: &str, path: &str) -> Self {
        Self::not_found(format!("there is no {method} {path}; see /spec.json"))
    }

    /// 405.
    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not take {method}; see /spec.json");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            codes::METHOD_NOT_ALLOWED,
            message,
        )
    }

    /// As one entry of a fan-out.
    pub(crate) fn into_detail(self) -> ErrorDetail {
        ErrorDetail {
            code: self.code.to_owned(),
            message: self.message,
        }
    }

    /// A create reports a taken name as 400, as the public SDKs expect; a fork as 409.
    pub(crate) fn of_create(failed: OpError) -> Self {
        match failed {
            OpError::NameTaken(_) => Self::invalid(codes::ALREADY_EXISTS, failed.to_string()),
            other => other.into(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::InvalidRequest => Self::invalid(codes::INVALID_REQUEST, refusal.message),
            RefusalKind::InvalidState => Self::state(refusal.message),
        }
    }
}

impl From<OpError> for ApiError {
    fn from(failed: OpError) -> Self {
        let text = chain(&failed);
        match failed {
            OpError::Refused(refusal) => refusal.into(),
            OpError::NotFound => Self::not_found(text),
            OpError::NoImage(_) => Self::not_found(text),
            OpError::Ambiguous(_) => {
                Self::new(StatusCode::CONFLICT, codes::AMBIGUOUS, text).for_good()
            }
            OpError::NameTaken(_) => {
                Self::new(StatusCode::CONFLICT, codes::NAME_CONFLICT, text).for_good()
            }
            OpError::Store(error) => error.into(),
            OpError::Vmm(error) => of_vmm(&error, text),
            OpError::Memory(error) | OpError::Pager(PagerError::Image(error)) => {
                of_image(&error, text)
            }
            OpError::Network(error) => of_network(&error, text),
            OpError::PortInUse { .. } => Self::port_in_use(text),
            OpError::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, codes::RATE_LIMITED, text),
            OpError::NoVmm { .. } => {
                Self::new(StatusCode::NOT_IMPLEMENTED, codes::NOT_SUPPORTED, text).for_good()
            }
            OpError::HostNotReady(_) => Self::dependency(text),
            OpError::PostFork(_) => Self::invalid(codes::POST_FORK_FAILED, text),
            OpError::Pager(_) | OpError::Unserved(_) => Self::internal(text),
            OpError::Guest(_) | OpError::Disk { .. } | OpError::Timeout(_) | OpError::Broken => {
                Self::internal(text)
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(failed: StoreError) -> Self {
        let text = chain(&failed);
        match failed {
            StoreError::Refused(refusal) => refusal.into(),
            StoreError::NotFound | StoreError::ImageGone(_) => Self::not_found(text),
            StoreError::NameTaken(_) => {
                Self::new(StatusCode::CONFLICT, codes::NAME_CONFLICT, text).for_good()
            }
            StoreError::ImageInUse(_) => {
                Self::new(StatusCode::CONFLICT, codes::CONFLICT, text).for_good()
            }
            // A record that cannot be read will not be readable a second later.
            StoreError::BadRecord { .. } => Self::internal(text).for_good(),
            StoreError::TooNew { .. } | StoreError::Unprotected(_) | StoreError::Database(_) => {
                Self::internal(text)
            }
        }
    }
}

impl From<ImagesError> for ApiError {
    fn from(failed: ImagesError) -> Self {
        let text = chain(&failed);
        match failed {
            ImagesError::Import(error) => error.into(),
            ImagesError::NotFound(_) => Self::not_found(text),
            ImagesError::BadName(_) | ImagesError::DigestInName(_) => {
                Self::invalid(codes::INVALID_NAME, text)
            }
            ImagesError::Nameless => Self::invalid(codes::INVALID_REQUEST, text),
            ImagesError::Removed(_) => Self::new(StatusCode::CONFLICT, codes::CONFLICT, text),
            ImagesError::Store(error) => error.into(),
        }
    }
}

impl From<ImportError> for ApiError {
    fn from(failed: ImportError) -> Self {
        let text = chain(&failed);
        match failed {
            ImportError::PlatformMissing { .. } => Self::invalid(codes::INVALID_PLATFORM, text),
            ImportError::Read(_)
            | ImportError::NotAnImage
            | ImportError::Malformed { .. }
            | ImportError::Missing { .. }
            | ImportError::Digest(_)
            | ImportError::DigestMismatch { .. }
            | ImportError::SeveralImages { .. }
            | ImportError::LimitExceeded { .. }
            | ImportError::LayerDamaged { .. }
            | ImportError::Refused { .. } => Self::invalid(codes::INVALID_REQUEST, text),
            ImportError::ProgramMissing { .. } | ImportError::NotRoot => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                codes::DEPENDENCY_MISSING,
                text,
            )
            .for_good(),
            ImportError::Io { .. }
            | ImportError::DiskFull { .. }
            | ImportError::MkfsFailed { .. } => Self::internal(text),
        }
    }
}

impl ApiError {
    /// 500 that says what the host lacks.
    pub(crate) fn dependency(message: String) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            codes::DEPENDENCY_MISSING,
            message,
        )
        .for_good()
    }

    fn port_in_use(message: String) -> Self {
        Self::new(StatusCode::CONFLICT, codes::PORT_IN_USE, message).for_good()
    }

    fn internal(message: String) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            codes::INTERNAL_ERROR,
            message,
        )
    }
}

impl From<IngressError> for ApiError {
    fn from(failed: IngressError) -> Self {
        let text = chain(&failed);
        let conflict = |code, text| Self::new(StatusCode::CONFLICT, code, text).for_good();
        match failed {
            IngressError::NotFound => Self::not_found(text),
            IngressError::Ambiguous(_) => conflict(codes::AMBIGUOUS, text),
            IngressError::NameTaken(_) => conflict(codes::ALREADY_EXISTS, text),
            IngressError::Published { .. } => Self::port_in_use(text),
            IngressError::Rules(_) => Self::invalid(codes::INVALID_REQUEST, text),
            IngressError::NoTarget(_) => Self::invalid(codes::INSTANCE_NOT_FOUND, text),
            IngressError::Instances(error) => error.into(),
            IngressError::Edge(error) => of_edge(error, text),
        }
    }
}

fn of_edge(failed: EdgeError, text: String) -> ApiError {
    let conflict = |code, text| ApiError::new(StatusCode::CONFLICT, code, text).for_good();
    match failed {
        EdgeError::BadRule(_) => ApiError::invalid(codes::CONFIG_VALIDATION_FAILED, text),
        EdgeError::NameTaken(_) => conflict(codes::ALREADY_EXISTS, text),
        EdgeError::Published { .. } => ApiError::port_in_use(text),
        EdgeError::Store(error) => error.into(),
        EdgeError::NotStarted(_) | EdgeError::Unreachable(_) => ApiError::internal(text),
        EdgeError::Rejected(rejected) => match rejected {
            Rejected::HostnameInUse { .. } => conflict(codes::HOSTNAME_IN_USE, text),
            Rejected::PortInUse { .. } => ApiError::port_in_use(text),
            Rejected::NoCertificate { .. } => ApiError::invalid(codes::DOMAIN_NOT_ALLOWED, text),
            Rejected::Rule { .. } | Rejected::CannotListen { .. } => {
                ApiError::invalid(codes::CONFIG_VALIDATION_FAILED, text)
            }
            Rejected::Certificate { .. } | Rejected::Format { .. } | Rejected::NotKept { .. } => {
                ApiError::internal(text)
            }
        },
    }
}

fn of_vmm(failed: &VmmError, text: String) -> ApiError {
    match failed {
        VmmError::Mismatch { .. } => image_mismatch(text),
        VmmError::Image(error) => of_image(error, text),
        VmmError::Exited { .. }
        | VmmError::Foreign { .. }
        | VmmError::Inconsistent { .. }
        | VmmError::Refused { .. }
        | VmmError::Timeout { .. }
        | VmmError::Unusable { .. }
        | VmmError::Io { .. } => ApiError::internal(text),
    }
}

fn of_network(failed: &NetworkError, text: String) -> ApiError {
    match failed {
        NetworkError::Exhausted { .. } => {
            ApiError::new(StatusCode::CONFLICT, codes::INSUFFICIENT_RESOURCES, text).for_good()
        }
        NetworkError::PortInUse { .. } => ApiError::port_in_use(text),
        NetworkError::BadPolicy(_) => ApiError::invalid(codes::INVALID_REQUEST, text),
        NetworkError::NotReady(_) => ApiError::dependency(text),
        NetworkError::PoolClash { .. }
        | NetworkError::MarkInUse { .. }
        | NetworkError::UnknownSlot(_)
        | NetworkError::Io { .. }
        | NetworkError::Teardown(_) => ApiError::internal(text),
    }
}

fn of_image(failed: &ImageError, text: String) -> ApiError {
    if failed.is_corruption() {
        image_mismatch(text)
    } else {
        ApiError::internal(text)
    }
}

fn image_mismatch(text: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, codes::IMAGE_MISMATCH, text).for_good()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            error!(status = self.status.as_u16(), code = self.code, why = %self.message, "request failed");
        }
        let body = Json(ErrorBody::new(self.code, self.message));
        let mut response = (self.status, body).into_response();
        if let Some(retry) = self.retry {
            let value = HeaderValue::from_static(if retry { "true" } else { "false" });
            response.headers_mut().insert(SHOULD_RETRY, value);
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
