//! Tests of what is drawn: texts as snapshots, pictures as XML, pages by their data.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not in test functions")]

mod mask;
mod page;
mod routing;
mod synthetic;
