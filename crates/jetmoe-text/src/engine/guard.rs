//! What is checked before the engine parses a template. Its parser, its code generator and the release of its syntax tree are
//! recursive: by every operator of a tag, every `elif` and every open block. The tokens of the engine's own tokenizer, which is
//! not recursive, bound that recursion.

use minijinja::machinery::{Token, WhitespaceConfig, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

/// Most bytes of a template.
const MAX_BYTES: usize = 1 << 20;

/// Most tokens of all tags. It also limits how many variables a template sets.
const MAX_TOKENS: usize = 65_536;

/// Most tokens of one tag: names, literals, operators and brackets.
const MAX_TAG_TOKENS: usize = 4_096;

/// Most `elif` of a template: each is a level of the syntax tree.
const MAX_ELIFS: usize = 1_024;

fn too_much(what: &str, found: impl std::fmt::Display, allowed: usize) -> Error {
    Error::new(ErrorKind::SyntaxError, format!("the template has {found} {what}, at most {allowed}"))
}

/// Refuses a template that might overflow the stack of the thread that compiles it.
pub(super) fn check(source: &str, whitespace: WhitespaceConfig) -> Result<(), Error> {
    if source.len() > MAX_BYTES {
        return Err(too_much("bytes", source.len(), MAX_BYTES));
    }
    let (mut all, mut elifs, mut tokens) = (0, 0, 0);
    let mut is_first = false;
    for token in tokenize(source, false, SyntaxConfig, whitespace) {
        // the parser reports the error with its line
        let Ok((token, span)) = token else { return Ok(()) };
        let at_line = |what: &str| format!("{what} in the tag in line {}", span.start_line);
        match token {
            Token::TemplateData(_) => {}
            Token::VariableStart | Token::BlockStart => {
                tokens = 0;
                is_first = true;
                continue;
            }
            token => {
                all += 1;
                tokens += 1;
                if all > MAX_TOKENS {
                    return Err(too_much("tokens", "more", MAX_TOKENS));
                }
                if tokens > MAX_TAG_TOKENS {
                    return Err(too_much(&at_line("tokens"), "more", MAX_TAG_TOKENS));
                }
                if is_first && matches!(token, Token::Ident("elif")) {
                    elifs += 1;
                    if elifs > MAX_ELIFS {
                        return Err(too_much("branches `elif`", "more", MAX_ELIFS));
                    }
                }
            }
        }
        is_first = false;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(source: &str) -> Option<String> {
        check(source, WhitespaceConfig::default()).err().map(|error| error.to_string())
    }

    #[test]
    fn the_last_of_each_is_within_its_limit() {
        let tag = |tokens: usize| format!("{{{{ {}0 }}}}", "- ".repeat(tokens - 2));
        // a name and the end of a tag
        let names = |count: usize| "{{ a }}".repeat(count);
        let elif = |count: usize| format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(count));
        for (within, beyond, says) in [
            (" ".repeat(MAX_BYTES), " ".repeat(MAX_BYTES + 1), "1048577 bytes, at most 1048576"),
            (names(MAX_TOKENS / 2), names(MAX_TOKENS / 2 + 1), "tokens, at most 65536"),
            (tag(MAX_TAG_TOKENS), tag(MAX_TAG_TOKENS + 1), "tokens in the tag in line 1, at most 4096"),
            (elif(MAX_ELIFS), elif(MAX_ELIFS + 1), "branches `elif`, at most 1024"),
        ] {
            assert_eq!(refusal(&within), None, "{says}");
            let error = refusal(&beyond).unwrap();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn text_comments_and_long_literals_are_no_tokens() {
        let text = "not ".repeat(10_000);
        for source in [text.clone(), format!("{{# {text} #}}"), format!("{{{{ '{text}' }}}}")] {
            assert_eq!(refusal(&source), None);
        }
        assert_eq!(refusal(&format!("{{% raw %}}{}{{% endraw %}}", "{% elif %}".repeat(2_000))), None);
    }
}
