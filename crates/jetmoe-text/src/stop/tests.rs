use proptest::prelude::*;

use super::*;

fn cut(stop: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
    let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
    let mut matcher = StopMatcher::new(&stop).unwrap();
    let mut output: Vec<String> = pieces.iter().map(|piece| matcher.push(piece)).collect();
    output.push(matcher.finish());
    (output, matcher.is_stopped())
}

#[test]
fn a_stop_string_may_span_pieces_and_none_of_it_comes_out() {
    assert_eq!(
        cut(&["END"], &["the E", "N", "D of it"]),
        (vec!["the ".into(), "".into(), "".into(), "".into()], true)
    );
}

#[test]
fn text_that_only_began_like_a_stop_string_comes_out_later() {
    assert_eq!(
        cut(&["END"], &["an E", "N", "T"]),
        (vec!["an ".into(), "".into(), "ENT".into(), "".into()], false)
    );
    assert_eq!(cut(&["END"], &["an E", "N"]), (vec!["an ".into(), "".into(), "EN".into()], false));
}

#[test]
fn nothing_comes_out_after_a_stop_string() {
    assert_eq!(cut(&["."], &["a.b", "c"]), (vec!["a".into(), "".into(), "".into()], true));
}

#[test]
fn the_stop_string_that_is_complete_first_counts_however_the_text_arrives() {
    assert_eq!(cut(&["abcd", "bc"], &["xabcd"]).0.concat(), "xa");
    assert_eq!(cut(&["abcd", "bc"], &["x", "a", "b", "c", "d"]).0.concat(), "xa");
    assert_eq!(cut(&["c", "bc"], &["xabcd"]).0.concat(), "xa");
}

#[test]
fn an_empty_stop_string_is_refused() {
    assert!(matches!(StopMatcher::new(&[String::new()]), Err(Error::EmptyStopString)));
}

proptest! {
    #[test]
    fn pieces_put_together_are_the_text_up_to_the_first_stop_string(
        pieces in prop::collection::vec("[abé]{0,3}", 0..12),
        stop in prop::collection::vec("[abé]{1,4}", 0..4),
    ) {
        let text = pieces.concat();
        let first = text
            .char_indices()
            .flat_map(|(start, _)| stop.iter().map(move |stop| (start, stop)))
            .filter(|(start, stop)| text[*start..].starts_with(stop.as_str()))
            .map(|(start, stop)| (start + stop.len(), start))
            .min();
        let expected = first.map_or(text.as_str(), |(_, start)| &text[..start]);
        let mut matcher = StopMatcher::new(&stop).unwrap();
        let mut output = String::new();
        for piece in &pieces {
            output += &matcher.push(piece);
            prop_assert!(expected.starts_with(&output));
        }
        output += &matcher.finish();
        prop_assert_eq!(output, expected);
        prop_assert_eq!(matcher.is_stopped(), first.is_some());
    }
}

#[test]
fn a_special_token_is_compared_and_never_comes_out() {
    let stop = ["<|end|>".to_owned(), "a<|user|>\nb".to_owned()];
    let mut matcher = StopMatcher::new(&stop).unwrap();
    assert_eq!(matcher.push("text"), "text");
    assert_eq!(matcher.push_special("<|user|>"), "");
    assert_eq!(matcher.push(" a"), " ");
    assert_eq!(matcher.push_special("<|user|>"), "");
    // it was no stop string: what was held back comes out without the token
    assert_eq!(matcher.push("\nc"), "a\nc");
    assert_eq!(matcher.push("a"), "");
    assert_eq!(matcher.push_special("<|user|>") + &matcher.push("\nb more"), "");
    assert!(matcher.is_stopped());
    let mut matcher = StopMatcher::new(&stop).unwrap();
    assert_eq!(matcher.push("text "), "text ");
    assert_eq!(matcher.push_special("<|end|>") + &matcher.push("more") + &matcher.finish(), "");
    assert!(matcher.is_stopped());
    let mut matcher = StopMatcher::new(&stop).unwrap();
    assert_eq!(matcher.push("a") + &matcher.push_special("<|user|>") + &matcher.finish(), "a");
    assert!(!matcher.is_stopped());
}
