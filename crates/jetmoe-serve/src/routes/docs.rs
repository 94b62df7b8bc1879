//! The OpenAPI document as JSON, and as a page that loads nothing from outside.

use std::fmt::Write as _;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::Html;
use axum::routing::get;
use serde_json::{Map, Value};
use utoipa::openapi::OpenApi;

use crate::state::AppState;

/// What the page may do: show its own style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("docs/style.css");

/// The routes of a document. They are no part of it.
pub(super) fn router(document: &OpenApi) -> Router<AppState> {
    let value = serde_json::to_value(document).unwrap_or_default();
    let json = Bytes::from(value.to_string());
    let page = Bytes::from(page(&value));
    let json = move || {
        let json = json.clone();
        async move { ([(CONTENT_TYPE, "application/json")], json) }
    };
    let page = move || {
        let page = page.clone();
        async move { ([(CONTENT_SECURITY_POLICY, POLICY)], Html(page)) }
    };
    Router::new().route("/openapi.json", get(json)).route("/docs", get(page))
}

/// The page.
fn page(document: &Value) -> String {
    let mut page = Page(String::new());
    let title = text(&document["info"]["title"]);
    page.raw("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>");
    page.text(&format!("{title}: API"));
    page.raw("</title><style>");
    page.raw(STYLE);
    page.raw("</style><header><h1>");
    page.text(&title);
    page.raw("</h1>");
    page.paragraph(&document["info"]["description"]);
    page.raw("<p>The same for programs: <a href=\"openapi.json\">openapi.json</a></p></header>");
    page.contents(document);
    page.raw("<main><h2>Routes</h2>");
    for (path, method, operation) in operations(document) {
        page.operation(path, method, operation);
    }
    page.raw("<h2>Types</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        page.schema(name, schema);
    }
    page.raw("</main></html>");
    page.0
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The anchor of a route.
fn anchor(path: &str, method: &str) -> String {
    let word = |letter: char| if letter.is_alphanumeric() { letter } else { '-' };
    format!("{method}{}", path.chars().map(word).collect::<String>())
}

/// HTML as it is written.
struct Page(String);

impl Page {
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    /// Text, with code between backticks.
    fn text(&mut self, text: &str) {
        for (index, part) in text.split('`').enumerate() {
            let (before, after) = if index % 2 == 1 { ("<code>", "</code>") } else { ("", "") };
            self.raw(before);
            for letter in part.chars() {
                match letter {
                    '&' => self.raw("&amp;"),
                    '<' => self.raw("&lt;"),
                    '>' => self.raw("&gt;"),
                    '"' => self.raw("&quot;"),
                    letter => self.0.push(letter),
                }
            }
            self.raw(after);
        }
    }

    fn paragraph(&mut self, value: &Value) {
        if let Some(text) = value.as_str() {
            self.raw("<p>");
            self.text(text);
            self.raw("</p>");
        }
    }

    fn contents(&mut self, document: &Value) {
        self.raw("<nav aria-label=\"Routes\"><ul>");
        for (path, method, operation) in operations(document) {
            // writing to a text does not fail
            let _written = write!(self.0, "<li><a href=\"#{}\">", anchor(path, method));
            self.text(&format!("`{} {path}`", method.to_uppercase()));
            self.raw("</a> ");
            self.text(&text(&operation["summary"]));
            self.raw("</li>");
        }
        self.raw("</ul></nav>");
    }

    fn operation(&mut self, path: &str, method: &str, operation: &Value) {
        let _written = write!(self.0, "<section id=\"{}\"><h3>", anchor(path, method));
        self.text(&format!("`{} {path}`", method.to_uppercase()));
        self.raw("</h3>");
        self.paragraph(&operation["summary"]);
        self.paragraph(&operation["description"]);
        let parameters = operation["parameters"].as_array();
        if let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty()) {
            self.raw("<h4>Parameters</h4><dl>");
            for parameter in parameters {
                self.raw("<dt>");
                self.text(&format!("`{}`", text(&parameter["name"])));
                self.raw("</dt><dd>");
                self.text(&text(&parameter["description"]));
                self.raw("</dd>");
            }
            self.raw("</dl>");
        }
        if operation["requestBody"].is_object() {
            self.raw("<h4>Body</h4>");
            self.content(&operation["requestBody"]);
        }
        self.raw("<h4>Responses</h4><dl>");
        for (status, response) in operation["responses"].as_object().into_iter().flatten() {
            self.raw("<dt>");
            self.text(status);
            self.raw("</dt><dd>");
            self.text(&text(&response["description"]));
            self.content(response);
            self.raw("</dd>");
        }
        self.raw("</dl></section>");
    }

    /// The types of a body, by their media types.
    fn content(&mut self, body: &Value) {
        for (media_type, content) in body["content"].as_object().into_iter().flatten() {
            self.raw("<p>");
            self.text(&format!("`{media_type}`: "));
            self.kind(&content["schema"]);
            self.raw("</p>");
        }
    }

    fn schema(&mut self, name: &str, schema: &Value) {
        self.raw("<section id=\"type-");
        self.text(name);
        self.raw("\"><h3>");
        self.text(&format!("`{name}`"));
        self.raw("</h3>");
        self.paragraph(&schema["description"]);
        match schema["properties"].as_object() {
            Some(properties) => self.properties(properties, &schema["required"]),
            None => {
                self.raw("<p>");
                self.kind(schema);
                self.raw("</p>");
            }
        }
        self.raw("</section>");
    }

    fn properties(&mut self, properties: &Map<String, Value>, required: &Value) {
        let is_required = |name: &str| required.as_array().into_iter().flatten().any(|it| it == name);
        self.raw("<dl>");
        for (name, property) in properties {
            self.raw("<dt>");
            self.text(&format!("`{name}` "));
            self.kind(property);
            self.raw(if is_required(name) { ", required" } else { "" });
            self.raw("</dt><dd>");
            self.text(&text(&property["description"]));
            self.raw("</dd>");
        }
        self.raw("</dl>");
    }

    /// A type in words, with links to others.
    fn kind(&mut self, schema: &Value) {
        if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
            self.raw("<a href=\"#type-");
            self.text(name);
            self.raw("\">");
            self.text(name);
            return self.raw("</a>");
        }
        for key in ["oneOf", "anyOf", "allOf"] {
            if let Some(choices) = schema[key].as_array() {
                return self.choices(choices);
            }
        }
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            return self.text(&values.join(", "));
        }
        match &schema["type"] {
            Value::String(kind) if kind == "array" => {
                self.raw("list of ");
                self.kind(&schema["items"]);
            }
            Value::String(kind) => self.text(kind),
            Value::Array(kinds) => {
                let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
                self.text(&kinds.join(" or "));
            }
            _ => self.raw("any"),
        }
    }

    fn choices(&mut self, choices: &[Value]) {
        for (index, choice) in choices.iter().enumerate() {
            self.raw(if index > 0 { " or " } else { "" });
            self.kind(choice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_route_and_loads_nothing() {
        let (_, document) = super::super::api().split_for_parts();
        let document = serde_json::to_value(&document).unwrap();
        let page = page(&document);
        for (path, method, _) in operations(&document) {
            assert!(page.contains(&format!("id=\"{}\"", anchor(path, method))), "{method} {path}");
        }
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
    }

    #[test]
    fn the_document_is_complete_and_of_version_3_1() {
        let (_, document) = super::super::api().split_for_parts();
        let document = serde_json::to_value(&document).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let text = document.to_string();
        let references = text.split("\"#/components/schemas/").skip(1);
        for name in references.filter_map(|rest| rest.split('"').next()) {
            assert!(document["components"]["schemas"][name].is_object(), "there is no schema {name}");
        }
    }

    #[test]
    fn every_operation_has_an_id_of_its_own() {
        let (_, document) = super::super::api().split_for_parts();
        let document = serde_json::to_value(&document).unwrap();
        let mut ids: Vec<String> =
            operations(&document).map(|(.., operation)| text(&operation["operationId"])).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "{ids:?}");
    }

    #[test]
    fn text_is_no_markup() {
        let mut page = Page(String::new());
        page.text("a < b & `c\"`");
        assert_eq!(page.0, "a &lt; b &amp; <code>c&quot;</code>");
    }
}
