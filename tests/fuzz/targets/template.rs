//! Any chat template is compiled and rendered, or refused, within the limits on time and memory.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jetmoe_checkpoint::names;
use jetmoe_fuzz::mutate_template;
use jetmoe_fuzz_targets::{abort_on_own_panics, base_file, content};
use jetmoe_text::{ChatMessage, ChatTemplate};
use libfuzzer_sys::fuzz_target;

static TEMPLATE: LazyLock<Vec<u8>> = LazyLock::new(|| base_file("checkpoint", names::CHAT_TEMPLATE));

fuzz_target!(init: abort_on_own_panics(), |input: &[u8]| {
    let Ok(source) = String::from_utf8(content(input, &TEMPLATE, mutate_template)) else { return };
    let tokens = BTreeMap::from([
        ("bos_token".to_owned(), "<s>".to_owned()),
        ("eos_token".to_owned(), "</s>".to_owned()),
    ]);
    let Ok(template) = ChatTemplate::new(&source, tokens) else { return };
    let messages = [ChatMessage::system("Be brief."), ChatMessage::user("Who made the heaven?")];
    let _ = template.render(&messages, true);
});
