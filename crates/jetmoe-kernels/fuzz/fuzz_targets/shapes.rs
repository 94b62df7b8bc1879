//! Products of any shape: every instruction set computes what the definition says where sizes fit together, and where they
//! do not, they are refused.
#![no_main]

#[path = "../../tests/weights/mod.rs"]
mod weights;

mod fitting;
mod sizes;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Input {
    Fitting(fitting::Fitting),
    Sizes(sizes::Sizes),
}

fuzz_target!(|input: Input| match input {
    Input::Fitting(fitting) => fitting.test(),
    Input::Sizes(sizes) => sizes.test(),
});
