//! Tokens as texts and bytes, for log-probabilities.

use jetmoe_rt::{Result, Tokenizer};

/// What each token adds to a text.
#[derive(Debug, Default)]
pub(crate) struct TokenTexts(Vec<Token>);

#[derive(Debug)]
struct Token {
    /// Bytes of its text; of the name of a special token.
    bytes: Vec<u8>,
    is_special: bool,
}

impl TokenTexts {
    /// Those of a tokenizer.
    ///
    /// # Errors
    /// A tokenizer that cannot decode a token.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let token = |(id, bytes)| match tokenizer.special_token(id) {
            Some(name) => Token { bytes: name.into_bytes(), is_special: true },
            None => Token { bytes, is_special: false },
        };
        Ok(TokenTexts((0..).zip(tokenizer.token_bytes()?).map(token).collect()))
    }

    /// The bytes that a token adds to a text; `None` for a special token and an id that only the model has.
    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.0.get(id as usize).filter(|token| !token.is_special).map(|token| token.bytes.as_slice())
    }

    /// The text of a token, or the name of a special one. One that is no whole text has the form `bytes:\xe2\x82`, as in OpenAI's
    /// API, and an id without bytes `token:ID`, so that different tokens have different texts.
    pub(crate) fn text(&self, id: u32) -> String {
        let bytes = self.0.get(id as usize).map_or(&[][..], |token| &token.bytes);
        match std::str::from_utf8(bytes) {
            Ok("") => format!("token:{id}"),
            Ok(text) => text.to_owned(),
            Err(_) => {
                let bytes = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
                format!("bytes:{}", bytes.collect::<String>())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jetmoe_testing::fixtures;

    use super::*;

    #[test]
    fn a_token_has_a_text_and_bytes() {
        let tokenizer = Tokenizer::open(&fixtures::checkpoint("jetmoe-mini")).unwrap().unwrap();
        let texts = TokenTexts::new(&tokenizer).unwrap();
        let id = |token: &str| tokenizer.token_id(token).unwrap();
        assert_eq!(texts.text(id("\u{2581}the")), " the");
        assert_eq!(texts.bytes(id("\u{2581}the")), Some(&b" the"[..]));
        assert_eq!(texts.text(id("<0xE2>")), "bytes:\\xe2");
        assert_eq!(texts.bytes(id("<0xE2>")), Some(&[0xe2][..]));
        assert_eq!((texts.text(2).as_str(), texts.bytes(2)), ("</s>", None));
        assert_eq!((texts.text(1 << 20).as_str(), texts.bytes(1 << 20)), ("token:1048576", None));
    }
}
