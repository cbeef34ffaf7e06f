//! Looking at a path in a guest.

use api::instances::{PathInfo, StatQuery};
use axum::Json;
use axum::extract::State;
use guest::{PathInfo as Seen, PathKind};

use super::App;
use super::error::ApiError;
use super::extract::{Key, Query};
use crate::instances::OpError;

/// Look at a path in an instance.
#[utoipa::path(get, path = "/instances/{id}/stat", operation_id = "statInstancePath", tag = "instances", params(("id" = String, Path), StatQuery),
    responses((status = 200, body = PathInfo), (status = 404, body = api::error::ErrorBody), (status = 409, body = api::error::ErrorBody)))]
pub(crate) async fn stat(
    State(app): State<App>,
    Key(key): Key,
    Query(query): Query<StatQuery>,
) -> Result<Json<PathInfo>, ApiError> {
    let (_, link) = super::guest_link(&app, &key, model::Operation::Stat).await?;
    let follow = query.follow_links.unwrap_or(false);
    let seen = link.stat(query.path, follow).await.map_err(OpError::from)?;
    Ok(Json(path_info(seen)))
}

/// What the guest saw, in the words of the wire.
pub(super) fn path_info(seen: Seen) -> PathInfo {
    match seen {
        Seen::Missing => PathInfo::default(),
        Seen::Unreadable { message } => PathInfo {
            error: Some(message),
            ..PathInfo::default()
        },
        Seen::Found(facts) => PathInfo {
            exists: true,
            is_dir: Some(facts.kind == PathKind::Directory),
            is_file: Some(facts.kind == PathKind::File),
            is_symlink: Some(facts.kind == PathKind::Symlink),
            link_target: facts.link_target,
            mode: Some(facts.mode),
            size: Some(facts.size),
            error: None,
        },
    }
}
