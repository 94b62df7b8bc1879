use jetmoe_checkpoint::Tokenizer;

use super::detokenizer::Detokenizer;
use super::stop::StopMatcher;
use crate::Result;

/// Text of a continuation while its tokens arrive.
///
/// Pieces never split a character, and put together they are exactly the text that the tokenizer adds to the prompt's
/// for all tokens at once: bytes that make no character come out as U+FFFD when no other byte can follow. Text that
/// may be the beginning of a stop string waits until that is decided. Output ends before the stop string that is
/// complete first; of several that are complete at the same character the longest counts.
///
/// ```no_run
/// # fn example(tokenizer: &jetmoe_checkpoint::Tokenizer, tokens: &[u32]) -> jetmoe_rt::Result<()> {
/// let prompt = tokenizer.encode("In the beginning", true)?;
/// let mut stream = jetmoe_rt::TextStream::new(tokenizer, &prompt, &["\n\n".to_owned()])?;
/// for token in tokens {
///     print!("{}", stream.push(*token)?);
///     if stream.is_stopped() {
///         break;
///     }
/// }
/// println!("{}", stream.finish()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TextStream<'t> {
    detokenizer: Detokenizer<'t>,
    stop: StopMatcher,
}

impl<'t> TextStream<'t> {
    /// Begins behind a prompt. The prompt's ids are needed because the first token's text depends on them: a space
    /// that begins a text is dropped, one that continues it is not.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for an empty stop string, or what the tokenizer refuses.
    pub fn new(tokenizer: &'t Tokenizer, prompt: &[u32], stop: &[String]) -> Result<Self> {
        Ok(TextStream { detokenizer: Detokenizer::new(tokenizer, prompt)?, stop: StopMatcher::new(stop)? })
    }

    /// Takes the next token and returns the text that is certain now, often none.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn push(&mut self, token_id: u32) -> Result<String> {
        if self.is_stopped() {
            return Ok(String::new());
        }
        let piece = self.detokenizer.push(token_id)?;
        Ok(self.stop.push(&piece))
    }

    /// Returns the text that waited, when no token will follow. It may still complete a stop string.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn finish(&mut self) -> Result<String> {
        if self.is_stopped() {
            return Ok(String::new());
        }
        let piece = self.detokenizer.finish()?;
        Ok(self.stop.push(&piece) + &self.stop.finish())
    }

    /// Whether a stop string was found; no text comes out after it.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake;

    fn text(stream: &mut TextStream<'_>, ids: &[u32]) -> String {
        let mut text: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        text += &stream.finish().unwrap();
        text
    }

    #[test]
    fn a_stop_string_made_of_bytes_is_found() {
        let tokenizer = fake::tokenizer();
        let prompt = tokenizer.encode("It costs", true).unwrap();
        let ids: Vec<u32> = "£€".bytes().map(|byte| 3 + u32::from(byte)).collect();
        let mut stream = TextStream::new(tokenizer, &prompt, &["€".to_owned()]).unwrap();
        assert_eq!(text(&mut stream, &ids), "£");
        assert!(stream.is_stopped());
    }

    #[test]
    fn nothing_comes_out_after_a_stop_string() {
        let tokenizer = fake::tokenizer();
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
            let tokenizer = fake::tokenizer();
            let prompt = tokenizer.encode("In the beginning", true).unwrap();
            let whole = text(&mut TextStream::new(tokenizer, &prompt, &[]).unwrap(), &ids);
            let mut stream = TextStream::new(tokenizer, &prompt, std::slice::from_ref(&stop)).unwrap();
            let cut = text(&mut stream, &ids);
            prop_assert_eq!(stream.is_stopped(), whole.contains(&stop));
            prop_assert_eq!(cut.as_str(), whole.split(&stop).next().unwrap());
        }
    }
}
