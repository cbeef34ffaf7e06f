//! Images: what instances are made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::query::{QueryError, tag_key};

/// An OCI image held by the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Normalised reference, such as `docker.io/library/alpine:latest`.
    pub name: String,
    /// Digest of the manifest, `sha256:…`.
    pub digest: String,
    /// How far the image is.
    pub status: ImageStatus,
    /// When it came here.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// `os/arch[/variant]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Place in the queue, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Bytes of the finished root disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The image's default arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// The image's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Where its program starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Labels given by users.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// How far an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageStatus {
    /// Waiting for its turn.
    Pending,
    /// Layers are being fetched.
    Pulling,
    /// Layers are being made into a root disk.
    Converting,
    /// Instances can be made from it.
    Ready,
    /// It could not be had; `error` says why.
    Failed,
}

/// `POST /images`: get an image by reference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateImageRequest {
    /// OCI reference.
    pub name: String,
    /// `os/arch[/variant]`; the host's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// Query of `GET /images`; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListImagesQuery {
    /// Only those with these labels, as `tags[key]=value`.
    #[param(style = DeepObject, explode)]
    pub tags: BTreeMap<String, String>,
}

impl ListImagesQuery {
    /// Reads the part of a URL after the question mark.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let mut tags = BTreeMap::new();
        for (parameter, value) in form_urlencoded::parse(query.as_bytes()) {
            let key = tag_key(&parameter)?;
            tags.insert(key.to_owned(), value.into_owned());
        }
        Ok(Self { tags })
    }
}

/// Query of `POST /images/import`, whose body is an OCI layout or a
/// `docker save` archive as a tar stream. An extension of coppice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportImageQuery {
    /// Name for the image; taken from the archive when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which image to take from an archive of several platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}
