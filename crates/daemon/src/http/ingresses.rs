//! Ingresses over HTTP.

use api::error::ErrorBody;
use api::ingresses::{
    CreateIngressRequest, Ingress, IngressMatch, IngressRule, IngressTarget, RequestHeaderAuth,
};
use api::instances::ListInstancesQuery;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::App;
use super::convert;
use super::error::ApiError;
use super::extract::{Body, Key};
use crate::store::{IngressRecord, IngressRuleRecord};

/// Lead requests for host names to instances.
#[utoipa::path(post, path = "/ingresses", operation_id = "createIngress", tag = "ingresses", request_body = CreateIngressRequest,
    responses((status = 201, body = Ingress), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    Body(request): Body<CreateIngressRequest>,
) -> Result<Response, ApiError> {
    let name = convert::name(&request.name)?;
    let tags = convert::tags(request.tags)?;
    let rules = request.rules.into_iter().map(record).collect();
    let made = app
        .ingresses()?
        .create(name, rules, tags, (app.now)())
        .await?;
    Ok((StatusCode::CREATED, Json(wire(made))).into_response())
}

/// List ingresses.
#[utoipa::path(get, path = "/ingresses", operation_id = "listIngresses", tag = "ingresses",
    responses((status = 200, body = Vec<Ingress>)))]
pub(crate) async fn list(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Ingress>>, ApiError> {
    let query = ListInstancesQuery::parse(&query.unwrap_or_default())
        .map_err(|error| ApiError::schema(error.to_string()))?;
    let all = match app.ingresses() {
        Ok(ingresses) => ingresses.list().await,
        Err(_) => Vec::new(),
    };
    let mut all: Vec<Ingress> = all.into_iter().map(wire).collect();
    all.retain(|ingress| convert::has_tags(&ingress.tags, &query.tags));
    Ok(Json(all))
}

/// Look at one ingress.
#[utoipa::path(get, path = "/ingresses/{id}", operation_id = "getIngress", tag = "ingresses", params(("id" = String, Path)),
    responses((status = 200, body = Ingress), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn get(State(app): State<App>, Key(key): Key) -> Result<Json<Ingress>, ApiError> {
    Ok(Json(wire(app.ingresses()?.find(&key).await?)))
}

/// Delete an ingress. Connections that are open go on for a while.
#[utoipa::path(delete, path = "/ingresses/{id}", operation_id = "deleteIngress", tag = "ingresses", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn delete(State(app): State<App>, Key(key): Key) -> Result<StatusCode, ApiError> {
    app.ingresses()?.remove(&key).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn record(rule: IngressRule) -> IngressRuleRecord {
    IngressRuleRecord {
        hostname: rule.matches.hostname,
        port: rule.matches.port,
        instance: rule.target.instance,
        target_port: rule.target.port,
        tls: rule.tls,
        redirect_http: rule.redirect_http,
        header_auth: rule
            .request_header_auth
            .map(|auth| (auth.header, auth.value)),
        wake: rule.wake,
    }
}

fn wire(record: IngressRecord) -> Ingress {
    let rule = |rule: IngressRuleRecord| IngressRule {
        matches: IngressMatch {
            hostname: rule.hostname,
            port: rule.port,
        },
        target: IngressTarget {
            instance: rule.instance,
            port: rule.target_port,
        },
        tls: rule.tls,
        redirect_http: rule.redirect_http,
        request_header_auth: rule
            .header_auth
            .map(|(header, value)| RequestHeaderAuth { header, value }),
        wake: rule.wake,
    };
    Ingress {
        id: record.id,
        name: record.name,
        rules: record.rules.into_iter().map(rule).collect(),
        tags: record.tags,
        created_at: convert::date(record.created_at),
    }
}
