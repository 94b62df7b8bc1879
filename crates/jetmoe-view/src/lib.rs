//! Draws what `jetmoe-observe` saw in a model: attention masks as text, SVG and PNG, routings as SVG and PNG heat maps and as one
//! HTML page to explore.
//!
//! Every function takes plain data and returns text or bytes; nothing is printed and no file is read or written. Texts of tokens are
//! data: control characters are shown as `\u{1b}`, and no text can become markup, a script or an escape sequence of a terminal.

mod error;
mod heat_map;
mod label;
mod mask;
mod page;
mod picture;
mod png;
mod routing;

pub use error::{Error, Result};
pub use mask::plot::{mask_png, mask_svg};
pub use mask::text::{TextStyle, mask_text};
pub use mask::window::Window;
pub use page::{PageText, comparison_page, routing_page};
pub use png::svg_to_png;
pub use routing::{load_png, load_svg, margin_png, margin_svg};
