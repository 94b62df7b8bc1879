use super::*;
use crate::fixtures;

/// A byte-level tokenizer with all bytes and one merge.
fn byte_level() -> Tokenizer {
    let letter =
        |byte: u8| (0..0x200).filter_map(char::from_u32).find(|it| byte_of(*it) == Some(byte)).unwrap();
    let mut vocab: serde_json::Map<String, serde_json::Value> =
        (0..=u8::MAX).map(|byte| (letter(byte).to_string(), byte.into())).collect();
    vocab.insert("\u{120}t".to_owned(), 256.into());
    let file = serde_json::json!({
        "version": "1.0",
        "added_tokens": [
            {"id": 257, "content": "<|end|>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
            {"id": 258, "content": "<tool>", "special": false, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["\u{120} t"]},
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    Tokenizer::open(folder.path()).unwrap().unwrap()
}

#[test]
fn a_byte_level_vocabulary_has_every_byte_and_added_texts() {
    let bytes = byte_level().token_bytes().unwrap();
    for byte in 0..=u8::MAX {
        assert_eq!(bytes[usize::from(byte)], [byte]);
    }
    assert_eq!(bytes[256..], [b" t".to_vec(), Vec::new(), b"<tool>".to_vec()]);
}

#[test]
fn the_bytes_of_tokens_are_the_text_that_they_are_encoded_from() {
    let byte_level = byte_level();
    for tokenizer in [fixtures::tokenizer(), &byte_level] {
        let bytes = tokenizer.token_bytes().unwrap();
        for text in
            ["In the beginning God created the heaven", "x = {\"a\": [1, 2]}\n\t\u{e9}\u{4f60}\u{1f600} end"]
        {
            // behind a word, so that no leading space is dropped
            let text = format!("and {text}");
            let ids = tokenizer.encode(&text, false).unwrap();
            let joined: Vec<u8> = ids.iter().flat_map(|id| bytes[*id as usize].clone()).collect();
            assert_eq!(String::from_utf8(joined).unwrap().trim_start(), text);
        }
    }
}

#[test]
fn a_vocabulary_with_byte_fallback_has_every_byte_once_more() {
    let tokenizer = fixtures::tokenizer();
    let bytes = tokenizer.token_bytes().unwrap();
    let of = |token: &str| bytes[tokenizer.token_id(token).unwrap() as usize].clone();
    assert_eq!(of("<0x0A>"), b"\n");
    assert_eq!(of("<0xE2>"), [0xe2]);
    assert_eq!(of("\u{2581}the"), b" the");
    assert_eq!(of("her"), b"her");
    assert_eq!(of("</s>"), b"");
    assert_eq!(bytes.len(), tokenizer.vocab_size());
}
