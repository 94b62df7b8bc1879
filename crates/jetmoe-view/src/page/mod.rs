//! The HTML page to explore a routing, or two. Its source is in `page/` of this crate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jetmoe_observe::{Routing, RoutingComparison};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::label::markup_text;
use crate::routing::CheckedRouting;

mod data;

use data::Data;

/// Texts of a page that only its caller has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageText {
    /// The model, such as its folder or hub id.
    pub model: String,
    /// A short name for each routing, such as a precision or the beginning of a text.
    pub names: Vec<String>,
}

const TEMPLATE: &str = include_str!("../../page/page.html");
const STYLE: &str = include_str!("../../page/page.css");
/// One script: the files in the order in which they use each other.
const SCRIPTS: [&str; 6] = [
    include_str!("../../page/data.js"),
    include_str!("../../page/draw.js"),
    include_str!("../../page/text.js"),
    include_str!("../../page/panels.js"),
    include_str!("../../page/overview.js"),
    include_str!("../../page/page.js"),
];

/// An HTML page to explore a routing: select a token and follow its experts through the layers, see the load of every expert, list the
/// tokens of one.
///
/// The page is one file that requests nothing: a content security policy forbids it, and permits the page's own style and script only,
/// by their digests. It works with the keyboard and in a light and a dark scheme. Texts of tokens are data in JSON, in which `<`, `>`,
/// `&`, U+2028 and U+2029 are escaped, and reach the page as text nodes only. Its size is about 1.4 MB for 1,000 tokens of 24 layers
/// with two experts of eight; probabilities of rejected experts are left out where they would take more than 1 MB, and a note says so.
/// Gates are rounded to 1/65535, probabilities to 1/255, margins and entropies to float16.
///
/// # Errors
/// There is no token, or sizes in the routing disagree.
pub fn routing_page(routing: &Routing, text: &PageText) -> Result<String> {
    let checked = CheckedRouting::new(routing)?;
    assemble(&Data::new(&[checked], false, text)?)
}

/// The same for two routings: of two texts, or of one text in two models, where every choice is compared and differences are marked.
///
/// # Errors
/// There is no token, or sizes in a routing or between both disagree.
pub fn comparison_page(comparison: &RoutingComparison, text: &PageText) -> Result<String> {
    let runs = [CheckedRouting::new(&comparison.first)?, CheckedRouting::new(&comparison.second)?];
    assemble(&Data::new(&runs, comparison.same_tokens, text)?)
}

fn assemble(data: &Data<'_>) -> Result<String> {
    let script = SCRIPTS.join("\n");
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        digest(&script),
        digest(STYLE)
    );
    let json = escape_json(&serde_json::to_string(data)?);
    let title = markup_text(&format!("Experts of {}", data.model()));
    let values = [
        ("{{policy}}", policy.as_str()),
        ("{{title}}", &title),
        ("{{style}}", STYLE),
        ("{{data}}", &json),
        ("{{script}}", &script),
    ];
    // in one pass over the template, so that a value is never searched for the next placeholder
    let mut page = String::with_capacity(TEMPLATE.len() + json.len() + script.len() + STYLE.len());
    let mut rest = TEMPLATE;
    for (placeholder, value) in values {
        let (before, after) = rest.split_once(placeholder).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(value);
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}

/// The digest of an inline element for a content security policy
/// (<https://www.w3.org/TR/CSP3/#grammardef-hash-source>).
fn digest(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text.as_bytes()))
}

/// JSON for a `<script>` element: no character that HTML or old JavaScript reads as anything but text.
fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}
