//! Images over HTTP.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use api::error::ErrorBody;
use api::images::{CreateImageRequest, Image, ImageStatus, ImportImageQuery, ListImagesQuery};
use axum::Json;
use axum::body::{Body as RawBody, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _, stream};
use tokio_util::io::StreamReader;

use super::App;
use super::convert::{date, has_tags};
use super::error::ApiError;
use super::extract::{Body, Key, Query};
use crate::images::NamedImage;

/// The only platform that guests are made for.
const PLATFORM: &str = "linux/amd64";
/// How long an upload may stand still. Each holds a thread, and others may be waiting.
const UPLOAD_IDLE: Duration = Duration::from_secs(60);

/// Import an OCI archive or a `docker save` archive.
#[utoipa::path(post, path = "/images/import", operation_id = "importImage", tag = "images", params(ImportImageQuery),
    request_body(content = String, content_type = "application/x-tar"),
    responses((status = 201, body = Image), (status = 400, body = ErrorBody)))]
pub(crate) async fn import(
    State(app): State<App>,
    Query(query): Query<ImportImageQuery>,
    body: RawBody,
) -> Result<Response, ApiError> {
    check_platform(query.platform.as_deref())?;
    let archive = StreamReader::new(Box::pin(moving(body)));
    let image = app.images.import(archive, query.name).await?;
    Ok((StatusCode::CREATED, Json(wire(image))).into_response())
}

/// The body as long as it keeps coming.
fn moving(body: RawBody) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(body.into_data_stream(), |mut data| async {
        let next = match tokio::time::timeout(UPLOAD_IDLE, data.next()).await {
            Ok(next) => next?.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("nothing came for {} s", UPLOAD_IDLE.as_secs()),
            )),
        };
        Some((next, data))
    })
}

fn check_platform(platform: Option<&str>) -> Result<(), ApiError> {
    match platform {
        Some(other) if other != PLATFORM => Err(ApiError::invalid(
            api::error::codes::INVALID_PLATFORM,
            format!("platform {other:?} does not run here; this server runs {PLATFORM}"),
        )),
        _ => Ok(()),
    }
}

/// Ask for an image by name. This server has no registry client yet: the image must
/// have been imported.
#[utoipa::path(post, path = "/images", operation_id = "createImage", tag = "images", request_body = CreateImageRequest,
    responses((status = 202, body = Image), (status = 404, body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    Body(request): Body<CreateImageRequest>,
) -> Result<Response, ApiError> {
    check_platform(request.platform.as_deref())?;
    let image = app.images.resolve(&request.name).await?;
    Ok((StatusCode::ACCEPTED, Json(wire(image))).into_response())
}

/// List images.
#[utoipa::path(get, path = "/images", operation_id = "listImages", tag = "images", params(ListImagesQuery),
    responses((status = 200, body = Vec<Image>), (status = 400, body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Image>>, ApiError> {
    let query = ListImagesQuery::parse(&query.unwrap_or_default())
        .map_err(|error| ApiError::schema(error.to_string()))?;
    let mut images: Vec<Image> = app.images.list().await?.into_iter().map(wire).collect();
    images.retain(|image| has_tags(&image.tags, &query.tags));
    Ok(Json(images))
}

/// Look at one image.
#[utoipa::path(get, path = "/images/{name}", operation_id = "getImage", tag = "images", params(("name" = String, Path)),
    responses((status = 200, body = Image), (status = 404, body = ErrorBody)))]
pub(crate) async fn get(State(app): State<App>, Key(name): Key) -> Result<Json<Image>, ApiError> {
    Ok(Json(wire(app.images.resolve(&name).await?)))
}

/// Delete an image. Refused while instances use it.
#[utoipa::path(delete, path = "/images/{name}", operation_id = "deleteImage", tag = "images", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn delete(State(app): State<App>, Key(name): Key) -> Result<StatusCode, ApiError> {
    app.images.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn wire(image: NamedImage) -> Image {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let env: BTreeMap<String, String> = image
        .record
        .env
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    Image {
        name: image.name,
        digest: image.record.digest,
        status: ImageStatus::Ready,
        created_at: date(image.record.created_at),
        platform: Some(image.record.platform),
        queue_position: None,
        error: None,
        size_bytes: Some(image.record.size_bytes),
        entrypoint: some(image.record.entrypoint),
        cmd: some(image.record.cmd),
        env: (!env.is_empty()).then_some(env),
        working_dir: Some(image.record.working_dir).filter(|dir| !dir.is_empty()),
        tags: BTreeMap::new(),
    }
}
