//! The error of this crate.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Data that disagrees with itself, such as a mask that is no square.
    #[error("{what}: expected {expected}, found {found}")]
    Inconsistent {
        /// The part of the data.
        what: String,
        /// The required size.
        expected: usize,
        /// The size that it has.
        found: usize,
    },
    /// There is no token to draw.
    #[error("{what} holds no token to draw")]
    Empty {
        /// The mask or the routing.
        what: &'static str,
    },
    /// An error of the library that draws.
    #[error("cannot draw {picture}: {message}")]
    Draw {
        /// The picture.
        picture: &'static str,
        /// The message of the library.
        message: String,
    },
    /// A picture that could not be turned into pixels.
    #[error("cannot render the SVG picture as PNG: {message}")]
    Render {
        /// The message of the library.
        message: String,
    },
    /// The data of a page cannot be written as JSON.
    #[error("cannot write the data of the page as JSON")]
    Json(#[from] serde_json::Error),
}
