use proptest::prelude::*;

use super::*;
use crate::fixtures;

fn text(stream: &mut TextStream<&Tokenizer>, ids: &[u32]) -> String {
    let mut text: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    text += &stream.finish().unwrap();
    text
}

#[test]
fn a_stop_string_made_of_bytes_is_found() {
    let tokenizer = fixtures::tokenizer();
    let prompt = tokenizer.encode("It costs", true).unwrap();
    let ids: Vec<u32> = "£€".bytes().map(|byte| 3 + u32::from(byte)).collect();
    let mut stream = TextStream::new(tokenizer, &prompt, &["€".to_owned()]).unwrap();
    assert_eq!(text(&mut stream, &ids), "£");
    assert!(stream.is_stopped());
}

#[test]
fn nothing_comes_out_after_a_stop_string() {
    let tokenizer = fixtures::tokenizer();
    let ids = tokenizer.encode("the LORD said unto Moses", false).unwrap();
    let mut stream = TextStream::new(tokenizer, &[], &["said".to_owned()]).unwrap();
    assert_eq!(text(&mut stream, &ids), "the LORD ");
    assert_eq!(stream.push(ids[0]).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "");
}

proptest! {
    #[test]
    fn text_ends_before_the_first_stop_string_however_it_is_cut_into_tokens(
        ids in prop::collection::vec(prop_oneof![2 => 259_u32..340, 1 => 3_u32..259], 0..40),
        stop in "[a-eh-t ]{1,2}",
    ) {
        let tokenizer = fixtures::tokenizer();
        let prompt = tokenizer.encode("In the beginning", true).unwrap();
        let whole = text(&mut TextStream::new(tokenizer, &prompt, &[]).unwrap(), &ids);
        let mut stream = TextStream::new(tokenizer, &prompt, std::slice::from_ref(&stop)).unwrap();
        let cut = text(&mut stream, &ids);
        prop_assert_eq!(stream.is_stopped(), whole.contains(&stop));
        prop_assert_eq!(cut.as_str(), whole.split(&stop).next().unwrap());
    }
}
