use crate::{Error, Result};

/// Cuts a text that arrives in pieces at the first stop string.
///
/// The first is the one that is complete first, and of several that are complete at the same character the longest;
/// so it does not matter how the text was cut into pieces.
#[derive(Debug)]
pub(super) struct StopMatcher {
    stop: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
    is_stopped: bool,
}

impl StopMatcher {
    /// # Errors
    /// As [`refuse_empty`].
    pub(super) fn new(stop: &[String]) -> Result<Self> {
        refuse_empty(stop)?;
        Ok(StopMatcher { stop: stop.to_vec(), held: String::new(), is_stopped: false })
    }

    /// Takes the next piece and returns the text that certainly belongs to the output.
    pub(super) fn push(&mut self, piece: &str) -> String {
        if self.is_stopped {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(start) = self.first_stop() {
            self.is_stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let may_begin_a_stop = self.held.split_off(self.held.len() - self.longest_beginning());
        std::mem::replace(&mut self.held, may_begin_a_stop)
    }

    /// Returns what was held back, when no text will follow.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Where the stop string begins that is complete first.
    fn first_stop(&self) -> Option<usize> {
        self.stop
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start)))
            .min()
            .map(|(_, start)| start)
    }

    /// Bytes at the end of the held text that are the beginning of a stop string.
    fn longest_beginning(&self) -> usize {
        self.stop
            .iter()
            .flat_map(|stop| stop.char_indices().map(|(length, _)| &stop[..length]))
            .filter(|beginning| self.held.ends_with(beginning))
            .map(str::len)
            .max()
            .unwrap_or(0)
    }
}

/// An empty stop string would end every text before it begins.
///
/// # Errors
/// [`Error::Option`] if there is one.
pub(super) fn refuse_empty(stop: &[String]) -> Result<()> {
    if stop.iter().any(String::is_empty) {
        return Err(Error::Option {
            option: "stop",
            found: "an empty text".to_owned(),
            expected: "texts of at least one character",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
        assert!(matches!(StopMatcher::new(&[String::new()]), Err(Error::Option { option: "stop", .. })));
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
}
