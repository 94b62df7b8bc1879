//! Mutations of `tokenizer.json`: ids, merges, added tokens and components.

use serde_json::{Map, Value, json};

use super::json::{mutate_json_text, to_text};
use crate::Choices;

/// Changes a tokenizer; once in four times as any JSON file.
pub fn mutate_tokenizer(text: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let parsed = serde_json::from_slice::<Value>(text);
    let (Ok(Value::Object(mut tokenizer)), false) = (parsed, choices.once_in(4)) else {
        return mutate_json_text(text, choices);
    };
    for _ in 0..=choices.below(3) {
        mutate(&mut tokenizer, choices);
    }
    to_text(&Value::Object(tokenizer)).into_bytes()
}

fn mutate(tokenizer: &mut Map<String, Value>, choices: &mut Choices<'_>) {
    match choices.below(5) {
        0 => mutate_vocabulary(tokenizer, choices),
        1 => mutate_merges(tokenizer, choices),
        2 => mutate_added_tokens(tokenizer, choices),
        3 => mutate_model(tokenizer, choices),
        _ => mutate_component(tokenizer, choices),
    }
}

fn mutate_vocabulary(tokenizer: &mut Map<String, Value>, choices: &mut Choices<'_>) {
    let Some(vocabulary) = part(tokenizer, "vocab").and_then(Value::as_object_mut) else { return };
    let token = vocabulary.keys().nth(choices.below(vocabulary.len())).cloned().unwrap_or_default();
    match choices.below(4) {
        0 => drop(vocabulary.remove(&token)),
        1 => drop(vocabulary.insert(choices.text(&token), json!(choices.below(400)))),
        2 => {
            let id = choices.integer(vocabulary.len() as i64);
            vocabulary.insert(token, json!(id));
        }
        // an id that another token has
        _ => drop(vocabulary.insert(token, json!(choices.below(300)))),
    }
}

fn mutate_merges(tokenizer: &mut Map<String, Value>, choices: &mut Choices<'_>) {
    let Some(merges) = part(tokenizer, "merges").and_then(Value::as_array_mut) else { return };
    let place = choices.below(merges.len());
    let other = choices.pick(merges).cloned().unwrap_or_default();
    match choices.below(5) {
        0 if place < merges.len() => drop(merges.remove(place)),
        1 => merges.insert(place, other),
        2 => merges.insert(place, json!([choices.text("a"), choices.text("b")])),
        3 => merges.insert(place, json!(choices.text("a b"))),
        _ => merges.reverse(),
    }
}

fn mutate_added_tokens(tokenizer: &mut Map<String, Value>, choices: &mut Choices<'_>) {
    const FLAGS: [&str; 5] = ["single_word", "lstrip", "rstrip", "normalized", "special"];
    let Some(added) = tokenizer.get_mut("added_tokens").and_then(Value::as_array_mut) else { return };
    let place = choices.below(added.len());
    let choice = choices.below(5);
    if choice == 0 {
        if let Some(mut token) = added.get(place).cloned() {
            token["content"] = choices.text("<x>").into();
            added.insert(place, token);
        }
        return;
    }
    let Some(token) = added.get_mut(place).filter(|token| token.is_object()) else { return };
    let content = token["content"].as_str().unwrap_or_default().to_owned();
    match choice {
        1 => token["id"] = choices.integer(300).into(),
        2 => token["id"] = choices.below(300).into(),
        3 => token["content"] = choices.text(&content).into(),
        _ => {
            let flag = choices.pick(&FLAGS).copied().unwrap_or_default();
            token[flag] = (token[flag] != json!(true)).into();
        }
    }
}

fn mutate_model(tokenizer: &mut Map<String, Value>, choices: &mut Choices<'_>) {
    let Some(model) = tokenizer.get_mut("model").and_then(Value::as_object_mut) else { return };
    let value = match choices.below(7) {
        0 => ("type", choices.pick(&["BPE", "WordPiece", "WordLevel", "Unigram"]).copied().into()),
        1 => ("unk_token", choices.text("<unk>").into()),
        2 => ("byte_fallback", choices.once_in(2).into()),
        3 => ("ignore_merges", choices.once_in(2).into()),
        4 => ("dropout", choices.pick(&[0.0, 0.5, 1.0, -1.0, 1e9]).copied().into()),
        5 => ("continuing_subword_prefix", choices.text("##").into()),
        _ => ("end_of_word_suffix", choices.text("</w>").into()),
    };
    model.insert(value.0.to_owned(), value.1);
}

/// Replaces or wraps the normalizer, pre-tokenizer, post-processor or decoder.
fn mutate_component(tokenizer: &mut Map<String, Value>, choices: &mut Choices<'_>) {
    const COMPONENTS: [(&str, &str); 4] = [
        ("normalizer", "normalizers"),
        ("pre_tokenizer", "pretokenizers"),
        ("post_processor", "processors"),
        ("decoder", "decoders"),
    ];
    let (name, list) = choices.pick(&COMPONENTS).copied().unwrap_or_default();
    let current = tokenizer.get(name).cloned().unwrap_or_default();
    let component = match choices.below(4) {
        0 => json!({ "type": "Sequence", list: vec![current; 1 + choices.below(20)] }),
        1 => Value::Null,
        _ => component(choices),
    };
    tokenizer.insert(name.to_owned(), component);
}

/// A component of any kind, also one that the place cannot have.
fn component(choices: &mut Choices<'_>) -> Value {
    let (text, small) = (choices.text("a"), choices.below(4));
    let pattern = match choices.below(2) {
        0 => json!({ "String": choices.text(" ") }),
        _ => json!({ "Regex": choices.pick(&["\\s+", "a|b", "", "(", "[a-z]", "(?=a)", "\\p{L}+"]) }),
    };
    match choices.below(16) {
        0 => json!({ "type": "Prepend", "prepend": text }),
        1 => json!({ "type": "Replace", "pattern": pattern, "content": text }),
        2 => {
            json!({ "type": "Strip", "content": choices.text("▁"), "start": small, "stop": choices.integer(1) })
        }
        3 => json!({ "type": "Strip", "strip_left": true, "strip_right": true }),
        4 => json!({ "type": "NFKC" }),
        5 => json!({ "type": "Lowercase" }),
        6 => json!({ "type": "ByteFallback" }),
        7 => json!({ "type": "Fuse" }),
        8 => {
            json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": small > 1 })
        }
        9 => {
            json!({ "type": "Metaspace", "replacement": choices.text("▁"), "prepend_scheme": "always", "split": true })
        }
        10 => json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": small > 1 }),
        11 => json!({ "type": "Digits", "individual_digits": small > 1 }),
        12 => json!({ "type": "Precompiled", "precompiled_charsmap": text }),
        13 => json!({ "type": "CTC", "pad_token": text, "word_delimiter_token": "|", "cleanup": true }),
        14 => {
            json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "lowercase": true })
        }
        _ => json!({
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": text, "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": small } }],
            "pair": [],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [choices.integer(1)], "tokens": ["<s>"] } },
        }),
    }
}

/// A part of the model.
fn part<'t>(tokenizer: &'t mut Map<String, Value>, name: &str) -> Option<&'t mut Value> {
    tokenizer.get_mut("model")?.get_mut(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_seeds_change_a_tokenizer() {
        let tokenizer = json!({
            "added_tokens": [{ "id": 0, "content": "<s>", "special": true }],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": { "type": "BPE", "vocab": { "<s>": 0, "a": 1, "b": 2, "ab": 3 }, "merges": [["a", "b"]] },
        });
        let text = to_text(&tokenizer).into_bytes();
        let is_changed = |seed: &u64| mutate_tokenizer(&text, &mut Choices::of_seed(*seed)) != text;
        assert!((0..500).filter(is_changed).count() > 400);
    }
}
