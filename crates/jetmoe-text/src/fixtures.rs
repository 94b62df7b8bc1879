//! The tokenizer that this crate's tests share.

use std::sync::LazyLock;

use jetmoe_testing::fixtures;

use crate::Tokenizer;

/// The tokenizer of jetmoe-mini, read once.
pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::open(&fixtures::checkpoint("jetmoe-mini")).unwrap().unwrap());
    &TOKENIZER
}
