//! The errors that every route can answer with.

use std::collections::BTreeMap;

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::error::ErrorBody;

/// The errors that every route can answer with, in [`ErrorBody`]'s form.
pub(crate) struct ErrorResponses;

/// Statuses, and when they are answered.
const STATUSES: [(&str, &str); 13] = [
    ("400", "A field is not valid or not supported"),
    ("401", "The key is missing or unknown"),
    ("403", "The page of another origin calls the server"),
    ("404", "There is no such model"),
    ("405", "The route has no such method"),
    ("408", "The body came too slowly"),
    ("413", "The body or the prompt is too long"),
    ("415", "The body is not of the type that the route takes"),
    ("429", "The queue is full, or the key has sent too many requests"),
    ("499", "The client closed the connection"),
    ("500", "The model or the server failed"),
    ("503", "The server has too little memory now, or ends"),
    ("504", "The request's time was over before anything was computed"),
];

impl IntoResponses for ErrorResponses {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses_with::<ErrorBody>()
    }
}

/// The errors that every route can answer with, with a body of another form.
pub(super) fn responses_with<T: ToSchema>() -> BTreeMap<String, RefOr<Response>> {
    let response = |description: &str| {
        let schema = Ref::from_schema_name(T::name());
        let content = ContentBuilder::new().schema(Some(schema)).build();
        ResponseBuilder::new().description(description).content("application/json", content).build()
    };
    let entry = |(status, text): (&str, &str)| (status.to_owned(), RefOr::T(response(text)));
    STATUSES.into_iter().map(entry).collect()
}

/// The schemas that [`ErrorResponses`] refers to.
pub(super) fn schemas() -> Vec<(String, RefOr<utoipa::openapi::Schema>)> {
    let mut schemas = vec![(ErrorBody::name().into_owned(), ErrorBody::schema())];
    ErrorBody::schemas(&mut schemas);
    schemas
}
