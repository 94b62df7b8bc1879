//! Products of any shape: every instruction set computes what the definition says for matching sizes, and refuses mismatched
//! ones.
#![no_main]

#[path = "../../../../crates/jetmoe-kernels/tests/products/weights.rs"]
mod weights;

mod any_shapes;
mod valid_shapes;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Input {
    Valid(valid_shapes::ValidCase),
    Any(any_shapes::AnyShapes),
}

fuzz_target!(|input: Input| match input {
    Input::Valid(case) => case.test(),
    Input::Any(shapes) => shapes.test(),
});
