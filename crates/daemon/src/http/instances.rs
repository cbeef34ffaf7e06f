//! Instances over HTTP: convert in, call one method, convert out.

use api::error::{ErrorBody, codes};
use api::instances::{
    CreateInstanceRequest, DeleteInstanceQuery, ForkManyResponse, ForkOutcome, ForkRequest,
    ForkResponse, Instance, InstanceState, ListInstancesQuery, PromoteRequest, StandbyRequest,
    StartRequest, UpdateInstanceRequest, WaitQuery, WaitResponse,
};
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::{InstanceId, Refusal, parse_duration};
use std::time::Duration;

use super::App;
use super::convert;
use super::error::ApiError;
use super::extract::{Body, Key, Query};
use crate::instances::{Listed, StartOverrides, View};

/// Wait when the request does not say how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(60);
/// Longest wait; a longer one is cut to it, as the public contract has it.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// Make an instance from an image and boot it.
#[utoipa::path(post, path = "/instances", operation_id = "createInstance", tag = "instances", request_body = CreateInstanceRequest,
    responses((status = 201, body = Instance), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    Body(request): Body<CreateInstanceRequest>,
) -> Result<Response, ApiError> {
    let name = convert::name(&request.name)?;
    let now = (app.now)();
    let expires_at = convert::expiry(request.ttl.as_deref(), request.expires_at, now)?.flatten();
    let image = app.images.resolve(&request.image).await?;
    let spec = convert::spec(
        request,
        app.limits,
        app.instances.drivers(),
        app.instances.network().available(),
        image.name,
        image.digest,
    )?;
    let id = app
        .instances
        .create(name, spec, expires_at)
        .await
        .map_err(ApiError::of_create)?;
    created(&app, &id).await
}

/// List instances.
#[utoipa::path(get, path = "/instances", operation_id = "listInstances", tag = "instances", params(ListInstancesQuery),
    responses((status = 200, body = Vec<Instance>)))]
pub(crate) async fn list(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Instance>>, ApiError> {
    let query = ListInstancesQuery::parse(&query.unwrap_or_default())
        .map_err(|error| ApiError::schema(error.to_string()))?;
    let fork_of = match &query.fork_of {
        Some(key) => Some(app.instances.find(key).await?.to_string()),
        None => None,
    };
    let now = (app.now)();
    let mut instances = Vec::new();
    for listed in app.instances.list().await? {
        match listed {
            Listed::Known(view) => instances.push(convert::instance(*view, now)),
            Listed::Unreadable { id, why } => {
                tracing::error!(instance = %id, %why, "left out of a listing: its record cannot be read");
            }
        }
    }
    instances.retain(|instance| {
        query.state.is_none_or(|state| instance.state == state)
            && (fork_of.is_none() || instance.fork_of_template == fork_of)
            && convert::has_tags(&instance.tags, &query.tags)
    });
    Ok(Json(instances))
}

/// Look at one instance.
#[utoipa::path(get, path = "/instances/{id}", operation_id = "getInstance", tag = "instances", params(("id" = String, Path)),
    responses((status = 200, body = Instance), (status = 404, body = ErrorBody)))]
pub(crate) async fn get(State(app): State<App>, Key(key): Key) -> Result<Json<Instance>, ApiError> {
    let id = app.instances.find(&key).await?;
    show(&app, &id).await
}

/// Change expiry, tags or the environment of later starts.
#[utoipa::path(patch, path = "/instances/{id}", operation_id = "updateInstance", tag = "instances", params(("id" = String, Path)),
    request_body = UpdateInstanceRequest,
    responses((status = 200, body = Instance), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn update(
    State(app): State<App>,
    Key(key): Key,
    Body(request): Body<UpdateInstanceRequest>,
) -> Result<Json<Instance>, ApiError> {
    let patch = convert::patch(request, (app.now)())?;
    let id = app.instances.find(&key).await?;
    app.instances.update(&id, patch).await?;
    show(&app, &id).await
}

/// Delete an instance for good.
#[utoipa::path(delete, path = "/instances/{id}", operation_id = "deleteInstance", tag = "instances",
    params(("id" = String, Path), DeleteInstanceQuery),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn delete(
    State(app): State<App>,
    Key(key): Key,
    Query(query): Query<DeleteInstanceQuery>,
) -> Result<StatusCode, ApiError> {
    let id = app.instances.find(&key).await?;
    let graceful = query.graceful_shutdown.unwrap_or(true);
    app.instances.delete(&id, graceful).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Boot a stopped instance.
#[utoipa::path(post, path = "/instances/{id}/start", operation_id = "startInstance", tag = "instances", params(("id" = String, Path)),
    request_body = StartRequest,
    responses((status = 200, body = Instance), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn start(
    State(app): State<App>,
    Key(key): Key,
    Body(request): Body<StartRequest>,
) -> Result<Json<Instance>, ApiError> {
    let id = app.instances.find(&key).await?;
    let overrides = StartOverrides {
        entrypoint: request.entrypoint,
        cmd: request.cmd,
    };
    app.instances.start(&id, overrides).await?;
    show(&app, &id).await
}

/// Power an instance off.
#[utoipa::path(post, path = "/instances/{id}/stop", operation_id = "stopInstance", tag = "instances", params(("id" = String, Path)),
    responses((status = 200, body = Instance), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn stop(
    State(app): State<App>,
    Key(key): Key,
) -> Result<Json<Instance>, ApiError> {
    let id = app.instances.find(&key).await?;
    app.instances.stop(&id).await?;
    show(&app, &id).await
}

/// Write a running instance into a memory image and end its VMM.
#[utoipa::path(post, path = "/instances/{id}/standby", operation_id = "standbyInstance", tag = "instances", params(("id" = String, Path)),
    request_body = StandbyRequest,
    responses((status = 200, body = Instance), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn standby(
    State(app): State<App>,
    Key(key): Key,
    Body(request): Body<StandbyRequest>,
) -> Result<Json<Instance>, ApiError> {
    let compression = convert::standby(request)?;
    let id = app.instances.find(&key).await?;
    app.instances.standby(&id, compression).await?;
    show(&app, &id).await
}

/// Wake an instance from its memory image.
#[utoipa::path(post, path = "/instances/{id}/restore", operation_id = "restoreInstance", tag = "instances", params(("id" = String, Path)),
    responses((status = 200, body = Instance), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn restore(
    State(app): State<App>,
    Key(key): Key,
) -> Result<Json<Instance>, ApiError> {
    let id = app.instances.find(&key).await?;
    app.instances.restore(&id).await?;
    show(&app, &id).await
}

/// Mark an instance in standby as a template.
#[utoipa::path(post, path = "/instances/{id}/promote-template", operation_id = "promoteTemplate", tag = "instances", params(("id" = String, Path)),
    request_body = PromoteRequest,
    responses((status = 200, body = Instance), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn promote(
    State(app): State<App>,
    Key(key): Key,
    Body(request): Body<PromoteRequest>,
) -> Result<Json<Instance>, ApiError> {
    let id = app.instances.find(&key).await?;
    let forks = convert::fork_memory(request.memory_backend, request.prefetch);
    app.instances.promote(&id, forks).await?;
    show(&app, &id).await
}

/// Remove the template mark; refused while forks live.
#[utoipa::path(post, path = "/instances/{id}/demote-template", operation_id = "demoteTemplate", tag = "instances", params(("id" = String, Path)),
    responses((status = 200, body = Instance), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn demote(
    State(app): State<App>,
    Key(key): Key,
) -> Result<Json<Instance>, ApiError> {
    let id = app.instances.find(&key).await?;
    app.instances.demote(&id).await?;
    show(&app, &id).await
}

/// Fork an instance, once or `count` times. Without `count` the answer is the fork.
#[utoipa::path(post, path = "/instances/{id}/fork", operation_id = "forkInstance", tag = "instances", params(("id" = String, Path)),
    request_body = ForkRequest,
    responses((status = 201, body = ForkResponse, description = "The fork; with count: an object with one entry for each"),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn fork(
    State(app): State<App>,
    Key(key): Key,
    Body(request): Body<ForkRequest>,
) -> Result<Response, ApiError> {
    let many = request.count.is_some();
    let template = request.template_id.clone();
    convert::name(&request.name)?;
    let order = convert::fork(request)?;
    let source = app.instances.find(&key).await?;
    let results = match template {
        None => app.instances.fork(&source, order).await?,
        Some(template) => {
            let template = template_id(&app, &template).await?;
            app.instances
                .fork_with_template(&source, &template, order)
                .await?
        }
    };
    let now = (app.now)();
    let mut forks = Vec::with_capacity(results.len());
    for result in results {
        let made = match result.outcome {
            Ok(id) => app.instances.view(&id).await.map_err(ApiError::from),
            Err(error) => Err(error.into()),
        };
        forks.push((result.name, made.map(|view| convert::instance(view, now))));
    }
    if !many && let Some((_, only)) = forks.pop() {
        let one = ForkResponse::One(Box::new(only?));
        return Ok((StatusCode::CREATED, Json(one)).into_response());
    }
    let forks = forks
        .into_iter()
        .map(|(name, made)| match made {
            Ok(instance) => ForkOutcome::made(instance),
            Err(error) => ForkOutcome::failed(name.as_str(), error.into_detail()),
        })
        .collect();
    let many = ForkResponse::Many(ForkManyResponse { forks });
    Ok((StatusCode::CREATED, Json(many)).into_response())
}

/// `template_id` must be an id, not a name: the specification says so.
async fn template_id(app: &App, text: &str) -> Result<InstanceId, ApiError> {
    let id: InstanceId = text
        .parse()
        .map_err(|_| Refusal::request(format!("template_id {text:?} is not an instance id")))?;
    Ok(app.instances.find(id.as_str()).await?)
}

/// Wait until an instance is in a state, rests in another one, or the time is up.
#[utoipa::path(get, path = "/instances/{id}/wait", operation_id = "waitForInstance", tag = "instances", params(("id" = String, Path), WaitQuery),
    responses((status = 200, body = WaitResponse), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn wait(
    State(app): State<App>,
    Key(key): Key,
    Query(query): Query<WaitQuery>,
) -> Result<Json<WaitResponse>, ApiError> {
    if query.state == InstanceState::Unknown {
        return Err(ApiError::invalid(
            codes::INVALID_STATE,
            "Unknown cannot be waited for",
        ));
    }
    let timeout = match query.timeout.as_deref() {
        None => DEFAULT_WAIT,
        Some(text) => parse_duration(text)
            .ok()
            .filter(|timeout| !timeout.is_zero())
            .ok_or_else(|| {
                ApiError::invalid(
                    codes::INVALID_TIMEOUT,
                    format!("timeout {text:?} is not a duration above 0, such as 30s"),
                )
            })?
            .min(MAX_WAIT),
    };
    let id = app.instances.find(&key).await?;
    let outcome = app
        .instances
        .wait(&id, convert::wanted_state(query.state), timeout)
        .await?;
    Ok(Json(WaitResponse {
        state: convert::state(outcome.state),
        state_error: outcome.state_error,
        timed_out: outcome.timed_out,
    }))
}

/// The instance that a path names.
pub(super) async fn view(app: &App, key: &str) -> Result<View, ApiError> {
    let id = app.instances.find(key).await?;
    Ok(app.instances.view(&id).await?)
}

async fn show(app: &App, id: &InstanceId) -> Result<Json<Instance>, ApiError> {
    let view = app.instances.view(id).await?;
    Ok(Json(convert::instance(view, (app.now)())))
}

async fn created(app: &App, id: &InstanceId) -> Result<Response, ApiError> {
    Ok((StatusCode::CREATED, show(app, id).await?).into_response())
}
