//! The OpenAPI document before routes are added, and the routes that return it.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement};

use super::errors;

/// Name of the security scheme.
const KEY: &str = "key";

/// The document without routes.
pub(super) fn base() -> OpenApi {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key, if the server has a file of them"))
        .build();
    let components = ComponentsBuilder::new()
        .security_scheme(KEY, SecurityScheme::Http(scheme))
        .schemas_from_iter(errors::schemas())
        .build();
    let info = InfoBuilder::new()
        .title("jetmoe serve")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Text generation, embeddings and classification with JetMoE models"))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        // no key is needed, or one
        .security(Some([
            SecurityRequirement::default(),
            SecurityRequirement::new::<_, [&str; 0], &str>(KEY, []),
        ]))
        .build()
}
