//! Checks normalizer, pre-tokenizer, decoder and post-processor.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Problem, expressions};

/// Components of a kind, those in sequences included.
const MAX_COMPONENTS: usize = 64;
/// Levels of sequences in sequences.
const MAX_DEPTH: usize = 8;
/// How many times longer the replacements that a file spells out can make a text.
const MAX_REPLACED_GROWTH: usize = 256;
/// How many times longer all components can, with tables of characters. ALBERT's normalizers, which are those of known models that
/// can the most, have 1452: NFKD, lower case, a precompiled table and a replacement.
const MAX_GROWTH: usize = 2048;
/// Bytes by which a table of characters replaces one.
const MAX_CHARACTER_BYTES: usize = 256;
/// Parts of a template, and tokens of one of them.
const MAX_PIECES: usize = 256;

/// Each kind, with the key under which a sequence has its components.
const KINDS: [(&str, &str); 4] = [
    ("normalizer", "normalizers"),
    ("pre_tokenizer", "pretokenizers"),
    ("decoder", "decoders"),
    ("post_processor", "processors"),
];

/// Checks every component. `is_token` tells whether there is a token of an id.
pub(super) fn check(file: &Value, is_token: &dyn Fn(u64) -> bool) -> Result<(), Problem> {
    for (kind, list) in KINDS {
        let mut components = Vec::new();
        collect(kind, &file[kind], list, MAX_DEPTH, &mut components)?;
        let (mut growth, mut replaced_growth): (usize, usize) = (1, 1);
        for (key, component) in components {
            check_component(&key, component)?;
            check_post_processor(&key, component, is_token)?;
            let replaced = growth_by_replacement(component);
            replaced_growth = replaced_growth.saturating_mul(replaced);
            growth = growth.saturating_mul(replaced).saturating_mul(growth_by_table(component));
        }
        for (growth, limit) in [(replaced_growth, MAX_REPLACED_GROWTH), (growth, MAX_GROWTH)] {
            if growth > limit {
                return Err(Problem::new(kind, format!("a text can become more than {limit} times longer")));
            }
        }
    }
    Ok(())
}

/// Lists a component and those in it, each with its key.
fn collect<'a>(
    key: &str,
    component: &'a Value,
    list: &str,
    depth: usize,
    components: &mut Vec<(String, &'a Value)>,
) -> Result<(), Problem> {
    if depth == 0 {
        return Err(Problem::new(key, format!("sequences are nested deeper than {MAX_DEPTH} levels")));
    }
    if components.len() == MAX_COMPONENTS {
        return Err(Problem::new(key, format!("there are more than {MAX_COMPONENTS} components")));
    }
    components.push((key.to_owned(), component));
    for (index, inner) in component[list].as_array().into_iter().flatten().enumerate() {
        collect(&format!("{key}.{list}[{index}]"), inner, list, depth - 1, components)?;
    }
    Ok(())
}

fn check_component(key: &str, component: &Value) -> Result<(), Problem> {
    if component["length"].as_u64() == Some(0) {
        return Err(Problem::new(format!("{key}.length"), "found 0, expected at least 1"));
    }
    if let Some(expression) = component["pattern"]["Regex"].as_str() {
        expressions::check(&format!("{key}.pattern.Regex"), expression)?;
    }
    match component["precompiled_charsmap"].as_str() {
        Some(table) => check_charsmap(&format!("{key}.precompiled_charsmap"), table),
        None => Ok(()),
    }
}

/// A table of characters: the size of a trie, the trie, and replacements that each end with a zero byte.
fn check_charsmap(key: &str, table: &str) -> Result<(), Problem> {
    let bytes = STANDARD.decode(table).map_err(|error| Problem::new(key, error.to_string()))?;
    match longest_replacement(&bytes) {
        None => {
            let problem = format!("its {} bytes are less than the size in front of it", bytes.len());
            Err(Problem::new(key, problem))
        }
        Some(longest) if longest > MAX_CHARACTER_BYTES => {
            let problem =
                format!("a replacement has {longest} bytes, expected at most {MAX_CHARACTER_BYTES}");
            Err(Problem::new(key, problem))
        }
        Some(_) => Ok(()),
    }
}

/// Bytes of the longest replacement in a table of characters. `None` if the table is shorter than its trie.
fn longest_replacement(table: &[u8]) -> Option<usize> {
    let size = u32::from_le_bytes(*table.first_chunk()?) as usize;
    let replacements = table[4..].get(size / 4 * 4..)?;
    replacements.split(|byte| *byte == 0).map(<[u8]>::len).max()
}

/// How many times more bytes a component can make of a text by Unicode's tables, or by one of its own.
fn growth_by_table(component: &Value) -> usize {
    if let Some(table) = component["precompiled_charsmap"].as_str() {
        // it may replace a single byte; the table was decoded before
        return STANDARD.decode(table).ok().and_then(|table| longest_replacement(&table)).unwrap_or(0).max(1);
    }
    match component["type"].as_str() {
        // U+FDFA: 33 bytes, 18 characters, of 3 bytes
        Some("NFKC" | "NFKD") => 11,
        // U+1D1C0 and U+0DDD
        Some("NFC" | "NFD") => 3,
        // U+023A: 3 bytes of 2
        Some("Lowercase") => 2,
        // spaces around a character, NFD and lower case
        Some("BertNormalizer") => 2 * 3 * 2,
        // a byte is a character of up to 2 bytes, with a space in front of the text
        Some("ByteLevel") => 4,
        _ => 1,
    }
}

/// How many times longer a component can make a text by replacements of its own.
fn growth_by_replacement(component: &Value) -> usize {
    let text = |value: &Value| value.as_str().map(str::len);
    if let Some(prepended) = text(&component["prepend"]) {
        return 1 + prepended;
    }
    let Some(content) = text(&component["content"]) else { return 1 };
    match text(&component["pattern"]["String"]) {
        // a decoder that strips has a content and no pattern
        _ if component["pattern"].is_null() => 1,
        Some(pattern) if pattern > 0 => content.div_ceil(pattern).max(1),
        // an expression may match between any two characters
        _ => 1 + content,
    }
}

/// A template refers to the texts, each at most once, and to special tokens of its list. Every token has an id of the vocabulary.
fn check_post_processor(key: &str, component: &Value, is_token: &dyn Fn(u64) -> bool) -> Result<(), Problem> {
    let check_id = |key: &str, id: &Value| match id.as_u64() {
        Some(id) if !is_token(id) => Err(Problem::new(key, format!("there is no token with the id {id}"))),
        _ => Ok(()),
    };
    for name in ["sep", "cls"] {
        check_id(&format!("{key}.{name}"), &component[name][1])?;
    }
    let special_tokens = &component["special_tokens"];
    for (template, texts) in [("single", ["A"].as_slice()), ("pair", ["A", "B"].as_slice())] {
        let key = format!("{key}.{template}");
        let problem = |text: String| Err(Problem::new(&key, text));
        let pieces = component[template].as_array().map(Vec::as_slice).unwrap_or_default();
        if pieces.len() > MAX_PIECES {
            return problem(format!("it has {} parts, expected at most {MAX_PIECES}", pieces.len()));
        }
        let mut seen: Vec<&str> = Vec::new();
        for piece in pieces {
            if let Some(text) = piece["Sequence"]["id"].as_str() {
                if !texts.contains(&text) || seen.contains(&text) {
                    return problem(format!(
                        "found the text {text:?}, expected each of {texts:?} at most once"
                    ));
                }
                seen.push(text);
            }
            let Some(name) = piece["SpecialToken"]["id"].as_str() else { continue };
            let token = &special_tokens[name];
            let (ids, tokens) = (token["ids"].as_array(), token["tokens"].as_array());
            let Some((ids, tokens)) = ids.zip(tokens) else {
                return problem(format!("special_tokens has no {name:?}"));
            };
            if ids.len() != tokens.len() || ids.len() > MAX_PIECES {
                return problem(format!(
                    "{name:?} has {} ids and {} tokens, expected as many, at most {MAX_PIECES}",
                    ids.len(),
                    tokens.len()
                ));
            }
            ids.iter().try_for_each(|id| check_id(&key, id))?;
        }
    }
    Ok(())
}
