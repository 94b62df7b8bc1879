//! The texts that `jetmoe classify` classifies: its arguments, or the lines of standard input.

use std::io::{self, BufRead, IsTerminal, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::Context;

use super::super::note;

/// A text and its number.
pub(super) struct Numbered {
    pub(super) line: usize,
    pub(super) text: String,
    /// Bytes of the whole line. Of one that has more than the limit the text is the beginning.
    pub(super) bytes: usize,
    /// Whether the line is UTF-8. In the text of another one, U+FFFD stands for the bytes that are not.
    pub(super) is_utf8: bool,
}

/// Lines of standard input that are read before they are classified.
const LINES_AHEAD: usize = 1024;

/// The texts with their numbers, blank ones included, as they come.
pub(super) enum Texts {
    Arguments(std::vec::IntoIter<Numbered>),
    /// Those that were read to find the first one that is not blank, and the others.
    Lines {
        first: std::vec::IntoIter<Numbered>,
        rest: Receiver<io::Result<Numbered>>,
    },
}

impl Texts {
    /// The arguments, or the lines of standard input, which a thread reads. Waits for the first text that is not blank, as far as
    /// lines are read ahead. Of a line with more than `limit` bytes only the beginning is kept.
    pub(super) fn read(arguments: &[String], limit: usize) -> anyhow::Result<Self> {
        if !arguments.is_empty() {
            let texts = arguments.iter().zip(1..).map(|(text, line)| Numbered {
                line,
                text: text.clone(),
                bytes: text.len(),
                is_utf8: true,
            });
            let texts: Vec<_> = texts.collect();
            ensure_text(texts.iter().any(|text| !is_blank(&text.text)))?;
            return Ok(Texts::Arguments(texts.into_iter()));
        }
        if io::stdin().is_terminal() {
            note("Type one text per line and end with Ctrl-D.");
        }
        let (sender, rest) = sync_channel(LINES_AHEAD);
        // not joined: it may wait for input when the command ends
        thread::spawn(move || {
            let mut input = io::stdin().lock();
            let lines = (1..).map_while(|line| read_line(&mut input, line, limit).transpose());
            for line in lines {
                let is_last = line.is_err();
                if sender.send(line).is_err() || is_last {
                    break;
                }
            }
        });
        let mut first: Vec<Numbered> = Vec::new();
        while first.len() < LINES_AHEAD && first.last().is_none_or(|text| is_blank(&text.text)) {
            let Ok(line) = rest.recv() else {
                ensure_text(false)?;
                break;
            };
            first.push(line.context(UNREADABLE)?);
        }
        Ok(Texts::Lines { first: first.into_iter(), rest })
    }

    /// Up to `most` texts: waits for one, and takes more if they are there. None at the end.
    pub(super) fn next_chunk(&mut self, most: usize) -> anyhow::Result<Vec<Numbered>> {
        let (first, rest) = match self {
            Texts::Arguments(texts) => return Ok(texts.by_ref().take(most).collect()),
            Texts::Lines { first, rest } => (first, rest),
        };
        let mut chunk: Vec<Numbered> = first.by_ref().take(most).collect();
        if chunk.is_empty() {
            chunk.extend(rest.recv().ok().transpose().context(UNREADABLE)?);
        }
        while chunk.len() < most
            && let Ok(line) = rest.try_recv()
        {
            chunk.push(line.context(UNREADABLE)?);
        }
        Ok(chunk)
    }
}

/// The next line without its end, or the beginning of one with more than `limit` bytes. `None` at the end.
fn read_line(input: &mut impl BufRead, line: usize, limit: usize) -> io::Result<Option<Numbered>> {
    let mut bytes = Vec::new();
    // with the end of a line
    input.take((limit as u64).saturating_add(2)).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let has_end = bytes.pop_if(|byte| *byte == b'\n').is_some();
    if has_end {
        bytes.pop_if(|byte| *byte == b'\r');
    }
    let rest = if has_end || bytes.len() <= limit { 0 } else { skip_line(input)? };
    let all = bytes.len() + rest;
    bytes.truncate(limit);
    // the limit may be within a character
    if all > limit
        && let Err(error) = str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    let text = String::from_utf8(bytes);
    let is_utf8 = text.is_ok();
    let text = text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Ok(Some(Numbered { line, text, bytes: all, is_utf8 }))
}

/// Bytes of the rest of a line, which is not kept.
fn skip_line(input: &mut impl BufRead) -> io::Result<usize> {
    let mut skipped = 0;
    loop {
        let bytes = input.fill_buf()?;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let count = end.unwrap_or(bytes.len());
        let is_end = end.is_some() || bytes.is_empty();
        input.consume(end.map_or(count, |end| end + 1));
        skipped += count;
        if is_end {
            return Ok(skipped);
        }
    }
}

const UNREADABLE: &str = "cannot read texts from standard input";

fn ensure_text(has_text: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        has_text,
        "there is no text to classify\n  give texts as arguments, or on standard input, one per line"
    );
    Ok(())
}

pub(super) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_line_the_beginning_is_kept() {
        let mut input = "abc\r\nabcd\r\nabcde\nabcdefgh\n\nab\u{e9}\u{e9}\nabcd".as_bytes();
        let lines = (1..).map_while(|line| read_line(&mut input, line, 4).unwrap());
        let lines: Vec<_> = lines.map(|line| (line.line, line.text, line.bytes)).collect();
        let expected = [
            (1, "abc", 3),
            (2, "abcd", 4),
            (3, "abcd", 5),
            (4, "abcd", 8),
            (5, "", 0),
            (6, "ab\u{e9}", 6),
            (7, "abcd", 4),
        ];
        assert_eq!(lines, expected.map(|(line, text, bytes)| (line, text.to_owned(), bytes)));
        let mut input = "ab\u{20ac}".as_bytes();
        assert_eq!(read_line(&mut input, 1, 3).unwrap().unwrap().text, "ab");
    }

    #[test]
    fn a_line_that_is_not_utf8_does_not_end_the_input() {
        let mut input = [b'a', 0xff, b'\n', b'b'].as_slice();
        let lines = (1..).map_while(|line| read_line(&mut input, line, 4).unwrap());
        let lines: Vec<_> = lines.map(|line| (line.text, line.is_utf8)).collect();
        assert_eq!(lines, [("a\u{fffd}".to_owned(), false), ("b".to_owned(), true)]);
    }
}
