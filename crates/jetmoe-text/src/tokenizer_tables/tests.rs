//! The values are parts of a file that alone is no tokenizer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;

fn problem(file: &Value) -> String {
    let Problem { key, problem } = check(file).unwrap_err();
    format!("{key}: {problem}")
}

#[test]
fn ids_have_a_limit_and_occur_once() {
    let limit = MAX_IDS as u64;
    let model = |first: u64, second: u64| json!({ "model": { "vocab": { "a": first, "b": second } } });
    assert_eq!(check(&model(0, limit - 1)), Ok(()));
    assert_eq!(
        problem(&model(0, limit)),
        "model.vocab: the id of \"b\" is 16777216, expected less than 16777216"
    );
    assert_eq!(problem(&model(7, 7)), "model.vocab: the id 7 of \"b\" occurs twice");
    let added = |id: u64| json!({ "added_tokens": [{ "id": id, "content": "<x>" }] });
    assert_eq!(check(&added(limit - 1)), Ok(()));
    assert!(problem(&added(limit)).starts_with("added_tokens: the id of \"<x>\" is 16777216"));
}

#[test]
fn tokens_have_a_limit_in_bytes() {
    let longest = "x".repeat(MAX_TOKEN_BYTES);
    assert_eq!(check_text("key", &longest), Ok(()));
    let error = check_text("key", &format!("{longest}x")).unwrap_err();
    assert!(error.problem.starts_with("a token has 1025 bytes, expected at most 1024: \"xxxx"), "{error:?}");
    let unigram = json!({ "model": { "vocab": [[longest + "x", -1.0]] } });
    assert!(problem(&unigram).starts_with("model.vocab: a token has 1025 bytes"));
}

#[test]
fn values_are_counted_before_they_are_read() {
    for (text, values) in [("[]", 1), ("[[[[]]]]", 4), (r#"{"a":{"b":[1,2]}}"#, 4)] {
        assert_eq!(most_values(text.as_bytes()), values, "{text}");
    }
}

#[test]
fn a_merge_can_be_the_text_of_a_token() {
    let model = |merge: Value| json!({ "merges": [["a", "b"], merge] });
    for merge in [json!(["a", "bc"]), json!("a bc")] {
        assert_eq!(check_merges(&model(merge.clone()), 3), Ok(()));
        let error = check_merges(&model(merge), 2).unwrap_err();
        assert_eq!(error, Problem::new("model.merges[1]", "there is no token \"abc\""));
    }
    let continued = |second: &str| json!({ "continuing_subword_prefix": "##", "merges": [["a", second]] });
    assert_eq!(check_merges(&continued("##b"), 2), Ok(()));
    for second in ["b", "日"] {
        let error = check_merges(&continued(second), 9).unwrap_err();
        assert!(error.problem.contains("does not begin with continuing_subword_prefix"), "{error:?}");
    }
}

#[test]
fn what_is_added_to_words_has_a_limit() {
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        let model = |bytes: usize| json!({ "model": { key: "#".repeat(bytes) } });
        assert_eq!(check(&model(MAX_AFFIX_BYTES)), Ok(()));
        let expected = format!("model.{key}: found 65 bytes, expected at most 64");
        assert_eq!(problem(&model(MAX_AFFIX_BYTES + 1)), expected);
    }
}

#[test]
fn words_have_a_limit() {
    let model = |limit: u64| json!({ "model": { "max_input_chars_per_word": limit } });
    assert_eq!(check(&model(MAX_WORD_CHARACTERS)), Ok(()));
    assert_eq!(
        problem(&model(MAX_WORD_CHARACTERS + 1)),
        "model.max_input_chars_per_word: found 1001, expected at most 1000"
    );
}

#[test]
fn components_have_a_limit_in_depth_and_number() {
    for (kind, list) in [
        ("normalizer", "normalizers"),
        ("pre_tokenizer", "pretokenizers"),
        ("decoder", "decoders"),
        ("post_processor", "processors"),
    ] {
        let nested = |levels: usize| {
            let inner = json!({ "type": "StripAccents" });
            json!({ kind: (1..levels).fold(inner, |inner, _| json!({ list: [inner] })) })
        };
        assert_eq!(check(&nested(8)), Ok(()));
        assert!(problem(&nested(9)).ends_with("sequences are nested deeper than 8 levels"));
        let wide = |count: usize| json!({ kind: { list: vec![json!({ "type": "StripAccents" }); count] } });
        assert_eq!(check(&wide(63)), Ok(()));
        assert!(problem(&wide(64)).ends_with("there are more than 64 components"));
    }
}

#[test]
fn replacements_have_a_limit_in_all() {
    let replace =
        |pattern: &str, content: &str| json!({ "pattern": { "String": pattern }, "content": content });
    let normalizer = |steps: Vec<Value>| json!({ "normalizer": { "normalizers": steps } });
    let llama = vec![json!({ "prepend": "▁" }), replace(" ", "▁")];
    assert_eq!(check(&normalizer(llama)), Ok(()));
    assert_eq!(check(&normalizer(vec![replace("a", "bb"); 8])), Ok(()));
    assert_eq!(
        problem(&normalizer(vec![replace("a", "bb"); 9])),
        "normalizer: a text can become more than 256 times longer"
    );
    // what shortens does not make up for it
    assert_eq!(check(&normalizer(vec![replace("``", "\""); 60])), Ok(()));
    let both = [vec![replace("aaaa", ""); 40], vec![replace("a", "bb"); 9]].concat();
    assert!(problem(&normalizer(both)).ends_with("256 times longer"));
    let strip = json!({ "decoder": { "type": "Strip", "content": " ", "start": 1, "stop": 0 } });
    assert_eq!(check(&strip), Ok(()));
}

/// The factors are those of `unicodedata` of Python 3.11, in bytes of UTF-8.
#[test]
fn tables_of_characters_have_a_limit_in_all() {
    let of = |kinds: &[&str]| {
        let steps: Vec<Value> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        json!({ "normalizer": { "normalizers": steps } })
    };
    for (within, beyond) in [
        (["NFKC"; 3].as_slice(), ["NFKC"; 4].as_slice()),
        (&["NFKD"; 3], &["NFKD"; 4]),
        (&["NFC"; 6], &["NFC"; 7]),
        (&["NFD"; 6], &["NFD"; 7]),
        (&["Lowercase"; 11], &["Lowercase"; 12]),
        (&["BertNormalizer"; 3], &["BertNormalizer"; 4]),
        (&["ByteLevel"; 5], &["ByteLevel"; 6]),
    ] {
        assert_eq!(check(&of(within)), Ok(()), "{within:?}");
        assert_eq!(problem(&of(beyond)), "normalizer: a text can become more than 2048 times longer");
    }
    let table = |longest: usize| {
        let bytes = [[0; 4].as_slice(), "x".repeat(longest).as_bytes(), b"\0"].concat();
        json!({ "type": "Precompiled", "precompiled_charsmap": STANDARD.encode(bytes) })
    };
    let albert = |longest: usize| {
        json!({ "normalizer": { "normalizers": [
            { "type": "Replace", "pattern": { "String": "``" }, "content": "\"" },
            { "type": "Replace", "pattern": { "String": "''" }, "content": "\"" },
            { "type": "NFKD" },
            { "type": "StripAccents" },
            { "type": "Lowercase" },
            table(longest),
            { "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " },
        ] } })
    };
    assert_eq!(check(&albert(33)), Ok(()));
    assert!(problem(&albert(256)).ends_with("2048 times longer"));
}

#[test]
fn a_table_of_characters_has_its_size_and_short_replacements() {
    let table = |size: u32, rest: &[u8]| {
        let bytes = [size.to_le_bytes().as_slice(), rest].concat();
        json!({ "normalizer": { "precompiled_charsmap": STANDARD.encode(bytes) } })
    };
    assert_eq!(check(&table(4, b"\0\0\0\0ab\0cd\0")), Ok(()));
    let error = problem(&table(12, b"\0\0\0\0ab\0"));
    assert_eq!(error, "normalizer.precompiled_charsmap: its 11 bytes are less than the size in front of it");
    let long = "x".repeat(257);
    let error = problem(&table(0, long.as_bytes()));
    assert!(error.ends_with("a replacement has 257 bytes, expected at most 256"), "{error}");
}

#[test]
fn a_template_names_texts_once_and_tokens_that_exist() {
    let file = |single: Value, ids: Value| {
        json!({
            "model": { "vocab": { "<s>": 1 } },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": single,
                "special_tokens": { "<s>": { "id": "<s>", "ids": ids, "tokens": ["<s>"] } },
            },
        })
    };
    let special = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let text = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
    assert_eq!(check(&file(json!([special("<s>"), text("A")]), json!([1]))), Ok(()));
    for (single, ids, expected) in [
        (json!([special("<t>")]), json!([1]), "special_tokens has no \"<t>\""),
        (json!([text("B")]), json!([1]), "found the text \"B\", expected each of [\"A\"] at most once"),
        (json!([text("A"), text("A")]), json!([1]), "found the text \"A\", expected each of"),
        (json!([special("<s>")]), json!([1, 1]), "\"<s>\" has 2 ids and 1 tokens"),
        (json!([special("<s>")]), json!([2]), "there is no token with the id 2"),
    ] {
        let error = problem(&file(single, ids));
        assert!(error.starts_with(&format!("post_processor.single: {expected}")), "{error}");
    }
    let roberta = json!({ "post_processor": { "sep": ["</s>", 2], "cls": ["<s>", 0] } });
    assert_eq!(problem(&roberta), "post_processor.sep: there is no token with the id 2");
}

#[test]
fn pieces_of_a_fixed_length_have_one() {
    let file = json!({ "pre_tokenizer": { "type": "FixedLength", "length": 0 } });
    assert_eq!(problem(&file), "pre_tokenizer.length: found 0, expected at least 1");
}
