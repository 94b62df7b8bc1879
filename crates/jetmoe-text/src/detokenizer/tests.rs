use proptest::prelude::*;

use super::*;
use crate::fixtures;

fn pieces(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32]) -> Vec<String> {
    let mut detokenizer = Detokenizer::new(tokenizer, prompt).unwrap();
    let mut pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(*id).unwrap()).collect();
    pieces.push(detokenizer.finish().unwrap());
    pieces
}

fn byte(tokenizer: &Tokenizer, byte: u8) -> u32 {
    tokenizer.token_id(&format!("<0x{byte:02X}>")).unwrap()
}

#[test]
fn the_space_that_continues_a_prompt_is_kept() {
    let tokenizer = fixtures::tokenizer();
    let all = tokenizer.encode("In the beginning of the reign", true).unwrap();
    let prompt = tokenizer.encode("In the beginning", true).unwrap();
    let text = pieces(tokenizer, &prompt, &all[prompt.len()..]).concat();
    assert_eq!(text, " of the reign");
}

#[test]
fn the_space_that_begins_a_text_is_dropped() {
    let tokenizer = fixtures::tokenizer();
    let ids = tokenizer.encode("the reign", false).unwrap();
    assert_eq!(pieces(tokenizer, &[1], &ids).concat(), "the reign");
    assert_eq!(pieces(tokenizer, &[], &ids).concat(), "the reign");
}

#[test]
fn the_bytes_of_a_character_come_out_together() {
    let tokenizer = fixtures::tokenizer();
    let prompt = tokenizer.encode("It costs", true).unwrap();
    let letter = tokenizer.encode("x", false).unwrap().pop().unwrap();
    let ids: Vec<u32> = "€".bytes().map(|value| byte(tokenizer, value)).chain([letter]).collect();
    assert_eq!(pieces(tokenizer, &prompt, &ids), ["", "", "", "€x", ""]);
}

#[test]
fn bytes_that_make_no_character_become_replacement_characters() {
    let tokenizer = fixtures::tokenizer();
    let prompt = tokenizer.encode("It costs", true).unwrap();
    let ids = [byte(tokenizer, 0xE2), byte(tokenizer, 0x82)];
    assert_eq!(pieces(tokenizer, &prompt, &ids), ["", "", "\u{FFFD}\u{FFFD}"]);
}

#[test]
fn a_special_token_between_bytes_does_not_part_them() {
    let tokenizer = fixtures::tokenizer();
    let prompt = tokenizer.encode("It costs", true).unwrap();
    let ids = [byte(tokenizer, 0xC2), 2, byte(tokenizer, 0xA3)];
    assert_eq!(pieces(tokenizer, &prompt, &ids), ["", "", "", "£"]);
}

#[test]
fn a_prompt_that_ends_in_bytes_is_not_repeated() {
    let tokenizer = fixtures::tokenizer();
    let prompt = tokenizer.encode("It costs 5€", true).unwrap();
    assert_eq!(prompt.last(), Some(&byte(tokenizer, 0xAC)));
    let continuation = tokenizer.encode("and", false).unwrap();
    assert_eq!(pieces(tokenizer, &prompt, &continuation).concat(), " and");
    assert_eq!(pieces(tokenizer, &prompt, &[byte(tokenizer, 0xC2), byte(tokenizer, 0xA3)]).concat(), "£");
}

#[test]
fn a_prompt_that_ends_inside_a_character_is_completed() {
    let tokenizer = fixtures::tokenizer();
    let prompt = [byte(tokenizer, b'a'), byte(tokenizer, 0xC2)];
    assert_eq!(pieces(tokenizer, &prompt, &[byte(tokenizer, 0xA3)]).concat(), "a£");
}

/// Ids of jetmoe-mini, those of bytes and of special tokens more often than their number.
fn ids(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u32>> {
    let utf8 =
        "[£€é🙂]{1,2}".prop_map(|text: String| text.bytes().map(|value| 3 + u32::from(value)).collect());
    let one = |range: std::ops::Range<u32>| range.prop_map(|id| vec![id]);
    let part = prop_oneof![6 => one(0..2048), 2 => one(3..259), 1 => one(0..3), 2 => utf8];
    prop::collection::vec(part, length).prop_map(|parts| parts.concat())
}

/// What the tokenizer adds to the prompt's text.
fn continuation(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32]) -> String {
    let before = tokenizer.decode(prompt).unwrap();
    let all = tokenizer.decode(&[prompt, ids].concat()).unwrap();
    all[common_length(&before, &all)..].to_owned()
}

proptest! {
    #[test]
    fn pieces_put_together_are_what_the_tokenizer_decodes(prompt in ids(0..8), ids in ids(0..30)) {
        let tokenizer = fixtures::tokenizer();
        let pieces = pieces(tokenizer, &prompt, &ids);
        prop_assert_eq!(pieces.concat(), continuation(tokenizer, &prompt, &ids));
    }

    #[test]
    fn prompt_and_pieces_read_on(prompt in "[a-zé€ ]{1,12}[a-z]", ids in ids(0..30)) {
        let tokenizer = fixtures::tokenizer();
        let prompt = tokenizer.encode(&prompt, true).unwrap();
        let text = tokenizer.decode(&prompt).unwrap() + &pieces(tokenizer, &prompt, &ids).concat();
        prop_assert_eq!(text, tokenizer.decode(&[prompt, ids].concat()).unwrap());
    }
}
