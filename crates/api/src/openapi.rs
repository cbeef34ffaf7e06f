//! The parts of the OpenAPI document that do not depend on routes. The daemon
//! knows the paths and starts its document from [`base`].

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, License, SecurityRequirement, Tag};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};

/// `info.version` of the document and `server.api_version` of capabilities.
pub const API_VERSION: &str = "0.3.0";

/// Name of the security scheme that paths refer to.
pub const BEARER_SCHEME: &str = "bearerAuth";

/// Groups of endpoints and what they are for.
pub const TAGS: [(&str, &str); 3] = [
    ("server", "Is it there, and what can it do"),
    (
        "instances",
        "MicroVMs: their life, their forks, a look inside",
    ),
    ("images", "OCI images that instances are made from"),
];

/// A document with title, security and tags, without paths.
pub fn base() -> OpenApi {
    let mut components = Components::new();
    components.add_security_scheme(
        BEARER_SCHEME,
        SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format("JWT")
                .build(),
        ),
    );
    let tags = TAGS.map(|(name, description)| {
        let mut tag = Tag::new(name);
        tag.description = Some(description.to_owned());
        tag
    });
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("coppice")
                .version(API_VERSION)
                .description(Some(
                    "MicroVMs that boot from OCI images, sleep, and fork with shared memory.",
                ))
                .license(Some(License::new("Apache-2.0"))),
        )
        .components(Some(components))
        .security(Some([SecurityRequirement::new(
            BEARER_SCHEME,
            Vec::<String>::new(),
        )]))
        .tags(Some(tags))
        .build()
}
