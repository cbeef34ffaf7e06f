//! What list queries have in common.
//!
//! Label filters come as `tags[key]=value`, which serde's form decoding does
//! not know, so list queries are taken apart by hand.

/// A query that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A parameter that the endpoint does not have.
    #[error("unknown query parameter {0:?}")]
    UnknownParameter(String),
    /// A value that the parameter cannot have.
    #[error("query parameter {parameter:?} cannot be {value:?}")]
    InvalidValue {
        /// Which parameter.
        parameter: String,
        /// What was given.
        value: String,
    },
}

/// The key of a label filter.
pub(crate) fn tag_key(parameter: &str) -> Result<&str, QueryError> {
    parameter
        .strip_prefix("tags[")
        .and_then(|rest| rest.strip_suffix(']'))
        .ok_or_else(|| QueryError::UnknownParameter(parameter.to_owned()))
}
