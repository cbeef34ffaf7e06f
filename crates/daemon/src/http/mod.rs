//! The REST edge: every route on one screen. Handlers convert in, call one method,
//! convert out; rules live in `model`, errors become statuses in `error`.

mod auth;
mod convert;
mod cp;
mod error;
mod exec;
mod extract;
mod guest_files;
mod images;
mod ingresses;
mod instances;
mod logs;
mod observe;
mod serve;
mod server;
mod stats;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri};
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use guest::Link;
use metrics_exporter_prometheus::PrometheusHandle;
use model::{InstanceId, Operation, UnixMillis, admit};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::error::ApiError;
use crate::images::Images;
use crate::ingress::Ingresses;
use crate::instances::{Instances, Layout};
use crate::tokens::Tokens;

pub use convert::Limits;
pub use serve::{Listeners, serve};

/// What handlers work with.
pub struct AppState {
    /// All instances.
    pub instances: Arc<Instances>,
    /// All images.
    pub images: Images,
    /// All ingresses; none on a server without an edge.
    pub ingresses: Option<Ingresses>,
    /// Who may come in.
    pub tokens: Tokens,
    /// The data directory, for logs.
    pub layout: Layout,
    /// Bounds of requests.
    pub limits: Limits,
    /// Renders metrics.
    pub metrics: PrometheusHandle,
    /// The wall clock.
    pub now: fn() -> UnixMillis,
}

impl AppState {
    fn ingresses(&self) -> Result<&Ingresses, ApiError> {
        let missing = || ApiError::dependency("this server has no ingress".to_owned());
        self.ingresses.as_ref().ok_or_else(missing)
    }
}

/// Shared by all handlers.
pub(crate) type App = Arc<AppState>;

fn routes() -> (Router<App>, OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(api::openapi::base())
        .routes(routes!(server::health))
        .routes(routes!(server::capabilities))
        .routes(routes!(instances::list, instances::create))
        .routes(routes!(
            instances::get,
            instances::update,
            instances::delete
        ))
        .routes(routes!(instances::start))
        .routes(routes!(instances::stop))
        .routes(routes!(instances::standby))
        .routes(routes!(instances::restore))
        .routes(routes!(instances::fork))
        .routes(routes!(instances::promote))
        .routes(routes!(instances::demote))
        .routes(routes!(instances::wait))
        .routes(routes!(logs::logs))
        .routes(routes!(guest_files::stat))
        .routes(routes!(stats::stats))
        .routes(routes!(exec::exec))
        .routes(routes!(cp::cp))
        .routes(routes!(images::list, images::create))
        .routes(routes!(images::import))
        .routes(routes!(images::get, images::delete))
        .routes(routes!(ingresses::list, ingresses::create))
        .routes(routes!(ingresses::get, ingresses::delete))
        .split_for_parts();
    // The build tool's own version stamp says nothing about the contract.
    document.info.version = api::openapi::API_VERSION.to_owned();
    (router, document)
}

/// The OpenAPI document, made from the routes and the wire types.
#[must_use]
pub fn openapi() -> OpenApi {
    routes().1
}

/// The whole service.
pub fn router(app: App) -> Router {
    let (router, document) = routes();
    let yaml = document.to_yaml().unwrap_or_default();
    router
        .route("/metrics", axum::routing::get(server::metrics))
        .route(
            "/spec.yaml",
            axum::routing::get(async move || ([("content-type", "application/yaml")], yaml)),
        )
        .merge(utoipa_swagger_ui::SwaggerUi::new("/swagger").url("/spec.json", document))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        // Images are streamed; JSON bodies have a limit of their own.
        .layer(DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&app),
            auth::require,
        ))
        .layer(axum::middleware::from_fn(observe::observe))
        .with_state(app)
}

async fn no_route(method: Method, OriginalUri(uri): OriginalUri) -> Response {
    ApiError::no_route(method.as_str(), uri.path()).into_response()
}

async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> Response {
    ApiError::wrong_method(method.as_str(), uri.path()).into_response()
}

/// The line to the agent of a running instance; refused in any other state.
async fn guest_link(
    app: &App,
    key: &str,
    operation: Operation,
) -> Result<(InstanceId, Link), ApiError> {
    let id = app.instances.find(key).await?;
    let published = app.instances.published(&id)?;
    admit(operation, published.state, 0)?;
    match published.link {
        Some(link) => Ok((id, link)),
        None => Ok((id.clone(), app.instances.wait_for_link(&id).await?)),
    }
}
