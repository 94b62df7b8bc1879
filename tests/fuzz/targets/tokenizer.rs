//! Any `tokenizer.json` is read or refused, and one that is read encodes and decodes any text.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use jetmoe_checkpoint::names;
use jetmoe_fuzz::mutate_tokenizer;
use jetmoe_fuzz_targets::{abort_on_own_panics, base_file, content, copy_of};
use jetmoe_text::{TextStream, Tokenizer};
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| copy_of("checkpoint"));
static TOKENIZER: LazyLock<Vec<u8>> = LazyLock::new(|| base_file("checkpoint", names::TOKENIZER));

fuzz_target!(init: abort_on_own_panics(), |input: &[u8]| {
    fs::write(FOLDER.join(names::TOKENIZER), content(input, &TOKENIZER, mutate_tokenizer)).unwrap();
    let Ok(Some(tokenizer)) = Tokenizer::open(&FOLDER) else { return };
    for text in ["In the beginning", "", "<s> é▁𝄞</s>\u{301}"] {
        let Ok(ids) = tokenizer.encode(text, true) else { continue };
        let _ = tokenizer.decode(&ids);
        let Ok(mut stream) = TextStream::new(&tokenizer, &ids, &["stop".to_owned()]) else { continue };
        for id in ids.into_iter().chain([0, 300, u32::MAX]) {
            if stream.push(id).is_err() {
                return;
            }
        }
        let _ = stream.finish();
    }
});
