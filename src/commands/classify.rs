//! `jetmoe classify`.

use std::io::{self, BufRead, IsTerminal, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::Context;
use clap::{Args, ValueEnum};
use jetmoe_artifact::Task;
use jetmoe_conformance::BackendName;
use jetmoe_console::escape_line;
use jetmoe_rt::{
    Classification, ClassificationFunction, ClassificationOptions, ClassificationRequest, ClassifierInput,
    Error, ErrorKind, Model, TextClassifier,
};
use serde::Serialize;

use super::model::ModelArguments;
use super::{ExitStatus, Format, SCHEMA, note, print};

/// Classify texts, or pairs of texts.
///
/// The texts are the arguments, or the lines of standard input, which are classified as they come. Each has one result with its
/// number, from 1; a blank text has one without a class. If a text cannot be classified, the others are, and the exit status is 2.
///
/// Scores are what transformers' text-classification pipeline gives: probabilities that sum up to 1; with the problem type
/// multi_label_classification, or a single label, a probability of each class alone; with the problem type regression, values.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  jetmoe classify --model artifact \"In the beginning was the Word\"")]
pub(crate) struct Classify {
    #[command(flatten)]
    model: ModelArguments,
    /// Backend, one that `jetmoe devices` lists [default: ort for an artifact, or tract without ONNX Runtime; reference for
    /// a checkpoint]
    #[arg(long)]
    backend: Option<BackendName>,
    /// Cut longer texts to this many tokens, special ones included [default: see --too-long]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// What to do with a text that has more tokens than the model has positions [default: refuse]
    #[arg(long, value_name = "ACTION")]
    too_long: Option<TooLong>,
    /// Each text is a pair, separated by a tab: a query and a passage, for instance.
    #[arg(long)]
    pairs: bool,
    /// Texts per step.
    #[arg(long, value_name = "N", default_value_t = ClassificationOptions::default().batch_size)]
    batch_size: usize,
    /// Most bytes of a text, also of one that is cut [default: 64 per position of the model, at least 1048576]
    #[arg(long, value_name = "N")]
    max_text_bytes: Option<usize>,
    /// Print one line per text: number, score, label and text, or a JSON object.
    #[arg(long, default_value = "table")]
    format: Format,
    /// The texts [default: standard input, one per line]
    texts: Vec<String>,
}

/// What to do with a text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TooLong {
    /// Classify what fits, as transformers does with truncation=True, and say so.
    Cut,
    /// Refuse this text alone.
    Refuse,
}

/// One line of `--format json`, documented in docs/json.md. The fields after the texts are null if the text has no class.
#[derive(Serialize)]
struct Output<'a> {
    schema_version: u32,
    line: usize,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_pair: Option<&'a str>,
    label: Option<&'a str>,
    label_index: Option<usize>,
    score: Option<f32>,
    probability: Option<f32>,
    function: Option<String>,
    scores: Option<&'a [f32]>,
    logits: Option<&'a [f32]>,
    tokens: Option<usize>,
    truncated: Option<bool>,
    error: Option<String>,
}

/// A text and its number.
struct Numbered {
    line: usize,
    text: String,
    /// Bytes of the whole line. Of one that has more than the limit the text is the beginning.
    bytes: usize,
    /// Whether the line is UTF-8. In the text of another one, U+FFFD stands for the bytes that are not.
    is_utf8: bool,
}

/// Why a text has no class.
#[derive(Debug)]
enum Unclassified {
    /// It is blank, which is no mistake.
    Blank,
    /// It cannot be classified.
    Refused(String),
}

impl Unclassified {
    fn message(&self) -> &str {
        match self {
            Unclassified::Blank => "the text is blank",
            Unclassified::Refused(message) => message,
        }
    }
}

/// Batches of texts that are sorted by length together, before their results are printed. The first chunk is one batch, and
/// each may have twice as many as the one before.
const MAX_BATCHES: usize = 16;

/// Lines of standard input that are read before they are classified.
const LINES_AHEAD: usize = 1024;

/// The texts with their numbers, blank ones included, as they come.
enum Texts {
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
    fn read(arguments: &[String], limit: usize) -> anyhow::Result<Self> {
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
    fn next_chunk(&mut self, most: usize) -> anyhow::Result<Vec<Numbered>> {
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

impl Classify {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let options = ClassificationOptions::default()
            .with_max_tokens(self.max_tokens)
            .with_batch_size(self.batch_size);
        options.validate().map_err(super::as_cli_error)?;
        anyhow::ensure!(
            self.max_tokens.is_none() || self.too_long != Some(TooLong::Refuse),
            "--max-tokens cuts texts, and --too-long is refuse\n  leave one of them out"
        );
        let opened = self.model.open()?;
        self.model.require_task(&opened, Task::SequenceClassification)?;
        let limit = self.max_text_bytes.unwrap_or_else(|| Model::default_max_text_bytes(opened.config()));
        // a pair has a tab besides its texts
        let mut texts = Texts::read(&self.texts, limit.saturating_add(usize::from(self.pairs)))?;
        let model = self.model.load(&opened, self.backend)?.with_max_text_bytes(self.max_text_bytes);
        let classifier = TextClassifier::new(&model)?;
        let positions = classifier.model().config().max_position_embeddings;
        let options = match (self.max_tokens, self.too_long) {
            (None, Some(TooLong::Cut)) => options.with_max_tokens(positions),
            _ => options,
        };
        let (mut refused, mut cut) = (Vec::new(), Vec::new());
        let (mut count, mut batches) = (0, 1);
        loop {
            let chunk = texts.next_chunk(self.batch_size.saturating_mul(batches))?;
            if chunk.is_empty() {
                break;
            }
            for (text, result) in chunk.iter().zip(self.classify(&classifier, &options, &chunk)?) {
                match &result {
                    Ok(classification) if classification.truncated => cut.push(text.line),
                    Err(Unclassified::Refused(_)) => refused.push(text.line),
                    _ => {}
                }
                print(&self.row(text, &result)?)?;
            }
            count += chunk.len();
            batches = MAX_BATCHES.min(batches * 2);
        }
        if !cut.is_empty() {
            let tokens = options.max_tokens.unwrap_or(positions);
            note(&format!("cut to {tokens} tokens: {}", list(&cut)));
        }
        if refused.is_empty() {
            return Ok(ExitStatus::Success);
        }
        note(&format!("{} of {count} texts cannot be classified: {}", refused.len(), list(&refused)));
        Ok(ExitStatus::BadInput)
    }

    /// A result for each text.
    fn classify(
        &self,
        classifier: &TextClassifier,
        options: &ClassificationOptions,
        texts: &[Numbered],
    ) -> anyhow::Result<Vec<Result<Classification, Unclassified>>> {
        let inputs: Vec<Result<ClassifierInput, Unclassified>> =
            texts.iter().map(|text| self.input(text, classifier.model().max_text_bytes())).collect();
        let usable = inputs.iter().filter_map(|input| input.as_ref().ok().cloned());
        let request = ClassificationRequest::batch(usable).with_options(options.clone());
        let mut results = classifier.classify_each(&request)?.into_iter();
        inputs
            .into_iter()
            .map(|input| match input {
                Err(unclassified) => Ok(Err(unclassified)),
                Ok(_) => match results.next().context("a text has no result")? {
                    Ok(classification) => Ok(Ok(classification)),
                    Err(error) => Ok(Err(Unclassified::Refused(describe(error)?))),
                },
            })
            .collect()
    }

    fn input(&self, text: &Numbered, limit: usize) -> Result<ClassifierInput, Unclassified> {
        if !text.is_utf8 {
            return Err(Unclassified::Refused("the text is not UTF-8".to_owned()));
        }
        if text.bytes > text.text.len() {
            return Err(Unclassified::Refused(too_many_bytes(text.bytes, limit)));
        }
        let text = text.text.as_str();
        match (is_blank(text), self.pairs, text.split_once('\t')) {
            (true, ..) => Err(Unclassified::Blank),
            (false, false, _) => Ok(ClassifierInput::from(text)),
            (false, true, Some(pair)) => Ok(ClassifierInput::from(pair)),
            (false, true, None) => {
                Err(Unclassified::Refused("there is no tab between the two texts".to_owned()))
            }
        }
    }

    fn row(&self, text: &Numbered, result: &Result<Classification, Unclassified>) -> anyhow::Result<String> {
        let Numbered { line, text, .. } = text;
        if self.format == Format::Json {
            let (text, text_pair) = match text.split_once('\t') {
                Some((text, text_pair)) if self.pairs => (text, Some(text_pair)),
                _ => (text.as_str(), None),
            };
            let class = result.as_ref().ok();
            let is_probability = |class: &&Classification| class.function != ClassificationFunction::None;
            let mut row = serde_json::to_string(&Output {
                schema_version: SCHEMA,
                line: *line,
                text,
                text_pair,
                label: class.map(|class| class.label.as_str()),
                label_index: class.map(|class| class.label_index),
                score: class.map(|class| class.score),
                probability: class.filter(is_probability).map(|class| class.score),
                function: class.map(|class| class.function.to_string()),
                scores: class.map(|class| class.scores.as_slice()),
                logits: class.map(|class| class.logits.as_slice()),
                tokens: class.map(|class| class.tokens),
                truncated: class.map(|class| class.truncated),
                error: result.as_ref().err().map(|error| error.message().to_owned()),
            })?;
            row.push('\n');
            return Ok(row);
        }
        let escaped = escape_line(text);
        Ok(match result {
            Ok(class) if class.function == ClassificationFunction::None => {
                format!("{line:4}  {:7.3}  {}  {escaped}\n", class.score, escape_line(&class.label))
            }
            Ok(class) => {
                format!("{line:4}  {:5.1} %  {}  {escaped}\n", class.score * 100.0, escape_line(&class.label))
            }
            Err(Unclassified::Blank) => format!("{line:4}        –\n"),
            Err(error) => {
                let beginning = beginning(&escaped);
                format!("{line:4}        –  {}: {beginning}\n", escape_line(error.message()))
            }
        })
    }
}

/// So much of a text that one recognizes it.
fn beginning(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// What is wrong with one text, in one line and without its index in the library's request. Other errors are those of the call.
fn describe(error: Error) -> anyhow::Result<String> {
    match (&error, error.kind()) {
        (Error::TooLong { tokens, limit, .. }, _) => {
            Ok(format!("{tokens} tokens, more than the {limit} positions of the model"))
        }
        (Error::TextTooLong { bytes, limit, .. }, _) => Ok(too_many_bytes(*bytes, *limit)),
        (Error::EmptyPrompt { .. }, _) => Ok("the text has no token".to_owned()),
        (Error::Logits { .. }, _) | (_, ErrorKind::InvalidInput) => Ok(error.to_string()),
        _ => Err(error.into()),
    }
}

fn too_many_bytes(bytes: usize, limit: usize) -> String {
    format!("{bytes} bytes, more than the {limit} of --max-text-bytes")
}

/// The numbers of texts, the first of them.
fn list(lines: &[usize]) -> String {
    const LISTED: usize = 10;
    let mut list = lines.iter().take(LISTED).map(usize::to_string).collect::<Vec<_>>().join(", ");
    if lines.len() > LISTED {
        list.push_str(&format!(" and {} more", lines.len() - LISTED));
    }
    list
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

    #[test]
    fn of_a_refused_text_the_beginning_is_shown() {
        assert_eq!(beginning(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(beginning(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
