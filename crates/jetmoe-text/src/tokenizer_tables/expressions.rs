//! Bounds regular expressions before they are compiled: a repetition is compiled as many times as it repeats.

use super::Problem;

/// Size of an expression with its repetitions written out.
const MAX_SIZE: usize = 4096;

/// Bytes of an expression: names and codes in it count as one character.
const MAX_BYTES: usize = 4 * MAX_SIZE;

/// Refuses an expression that is too large. `key` is where it is.
pub(super) fn check(key: &str, expression: &str) -> Result<(), Problem> {
    match expression.len() {
        bytes if bytes > MAX_BYTES => {
            Err(Problem::new(key, format!("it has {bytes} bytes, expected at most {MAX_BYTES}")))
        }
        _ if expanded_size(expression) > MAX_SIZE => Err(Problem::new(
            key,
            format!("with its repetitions written out the expression has more than {MAX_SIZE} characters"),
        )),
        _ => Ok(()),
    }
}

/// Number of characters and classes, each as often as it is repeated. What is no valid expression is left to the compiler.
fn expanded_size(expression: &str) -> usize {
    let mut groups = vec![0_usize];
    // of the last character, class or group
    let mut last: usize = 0;
    let mut rest = expression.chars();
    while let Some(character) = rest.next() {
        match character {
            '(' => {
                groups.push(0);
                last = 0;
                continue;
            }
            ')' => last = if groups.len() > 1 { groups.pop().unwrap_or(0).max(1) } else { 1 },
            '{' => match count(rest.as_str()) {
                Some((times, length)) => {
                    rest = rest.as_str()[length..].chars();
                    let repeated = last.saturating_mul(times.max(1));
                    add(&mut groups, repeated - last);
                    last = repeated;
                    continue;
                }
                None => last = 1,
            },
            '\\' => {
                skip_escape(&mut rest);
                last = 1;
            }
            '[' => {
                skip_class(&mut rest);
                last = 1;
            }
            _ => last = 1,
        }
        add(&mut groups, last);
    }
    groups.iter().fold(0, |sum, group| sum.saturating_add(*group))
}

fn add(groups: &mut [usize], size: usize) {
    if let Some(group) = groups.last_mut() {
        *group = group.saturating_add(size);
    }
}

/// The larger number of `n}`, `n,}` or `n,m}`, and the length of this text.
fn count(text: &str) -> Option<(usize, usize)> {
    let (numbers, _) = text.split_once('}')?;
    let (first, second) = numbers.split_once(',').unwrap_or((numbers, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (first, second) = (first.trim(), second.trim());
    if !is_number(first) || !is_number(second) || (first.is_empty() && second.is_empty()) {
        return None;
    }
    // one that is too long for a number is the largest
    let number = |text: &str| match text {
        "" => 0,
        text => text.parse().unwrap_or(usize::MAX),
    };
    Some((number(first).max(number(second)), numbers.len() + 1))
}

/// Skips what follows a backslash, with a name or a code in braces.
fn skip_escape(rest: &mut std::str::Chars<'_>) {
    let Some(character) = rest.next() else { return };
    let named = matches!(character, 'p' | 'P' | 'x' | 'u' | 'U') && rest.as_str().starts_with('{');
    if named && let Some(end) = rest.as_str().find('}') {
        *rest = rest.as_str()[end + 1..].chars();
    }
}

/// Skips a class up to the bracket that ends it.
fn skip_class(rest: &mut std::str::Chars<'_>) {
    let mut depth = 1;
    let mut is_first = true;
    while let Some(character) = rest.next() {
        match character {
            '\\' => skip_escape(rest),
            '[' => depth += 1,
            // as the first character it is one of the class
            ']' if !is_first => depth -= 1,
            _ => {}
        }
        is_first = is_first && character == '^';
        if depth == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_multiply_the_size_of_what_they_repeat() {
        for (expression, size) in [
            ("", 0),
            ("abc", 3),
            ("a{3}", 3),
            ("a{2,5}b", 6),
            ("(ab){4}", 8),
            ("((ab){4}c){10}", 90),
            ("a{2}{3}", 6),
            (r"\p{N}{1,3}", 3),
            (r"\x{0041}", 1),
            ("[a{9}]{2}", 2),
            (r"[^\]]]{2}", 3),
            ("a{,4}", 4),
            ("a{b}", 4),
            ("{", 1),
            ("a{99999999999999999999999}", usize::MAX),
        ] {
            assert_eq!(expanded_size(expression), size, "{expression}");
        }
    }

    #[test]
    fn expressions_of_known_tokenizers_are_far_below_the_limit() {
        let gpt_4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        assert!(expanded_size(gpt_4) < MAX_SIZE / 20, "{}", expanded_size(gpt_4));
        assert_eq!(check("key", &"a".repeat(MAX_SIZE)), Ok(()));
        assert!(check("key", &"a".repeat(MAX_SIZE + 1)).is_err());
    }
}
