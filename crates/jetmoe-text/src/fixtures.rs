//! The tokenizer that this crate's tests share.

use std::path::Path;
use std::sync::LazyLock;

use crate::Tokenizer;

/// The tokenizer of jetmoe-mini, read once.
pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/jetmoe-mini");
        Tokenizer::open(&folder).unwrap().unwrap()
    });
    &TOKENIZER
}
