//! Constraints: what the text of a continuation must be like, followed token by token by `llguidance`.
//!
//! A constraint excludes tokens only. Log-probabilities stay those of the model.

use std::fmt;
use std::sync::{Arc, OnceLock};

use jetmoe_rt::{Error, Generator};
use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::SimpleVob;
use serde_json::{Value, json};

use super::vocabulary::{Twins, Unusable, Vocabulary};
use super::{Job, JobError, Refusal};

/// What the text of a continuation must be like. The whole text matches: after its end only the end of the sequence is allowed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ConstraintKind {
    /// A JSON object, in one line.
    JsonObject,
    /// A JSON value that is valid by a JSON schema, in one line. Keys come in the order of the schema. What the schema asks for and cannot be
    /// followed is refused by name.
    JsonSchema(Value),
    /// A match of a regular expression, in the syntax of the crate `regex` without look-around and backreferences.
    Regex(String),
    /// A sentence of a grammar in Lark's syntax, as `llguidance` reads it.
    Lark(String),
    /// One of these texts.
    Choices(Vec<String>),
}

impl ConstraintKind {
    /// What it is called in an error.
    fn name(&self) -> &'static str {
        match self {
            ConstraintKind::JsonObject => "JSON object",
            ConstraintKind::JsonSchema(_) => "JSON schema",
            ConstraintKind::Regex(_) => "regular expression",
            ConstraintKind::Lark(_) => "Lark grammar",
            ConstraintKind::Choices(_) => "list of choices",
        }
    }

    fn grammar(&self) -> Result<TopLevelGrammar, Refusal> {
        Ok(match self {
            ConstraintKind::JsonObject => json_grammar(json!({"type": "object"})),
            ConstraintKind::JsonSchema(schema) if schema.get(JSON_OPTIONS).is_some() => {
                return Err(
                    self.refused(format!("{JSON_OPTIONS} is no keyword of JSON schema; leave it out"))
                );
            }
            ConstraintKind::JsonSchema(schema) => json_grammar(schema.clone()),
            ConstraintKind::Regex(expression) => TopLevelGrammar::from_regex(expression),
            ConstraintKind::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
            ConstraintKind::Choices(texts) if texts.is_empty() => {
                return Err(self.refused("it is empty; give at least one text"));
            }
            ConstraintKind::Choices(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| escape(text)).collect();
                TopLevelGrammar::from_regex(&texts.join("|"))
            }
        })
    }

    fn refused(&self, problem: impl Into<String>) -> Refusal {
        Refusal::Constraint { kind: self.name(), problem: problem.into() }
    }
}

/// The keyword by which `llguidance` takes options with a JSON schema.
const JSON_OPTIONS: &str = "x-guidance";

/// JSON in one line, with at most a space behind a comma or a colon. Without a bound of the whitespace a model can write nothing else
/// until its limit of tokens ends it.
fn json_grammar(schema: Value) -> TopLevelGrammar {
    let mut schema = if schema == Value::Bool(true) { json!({}) } else { schema };
    if let Some(keywords) = schema.as_object_mut() {
        let options =
            json!({ "whitespace_flexible": false, "item_separator": ", ?", "key_separator": ": ?" });
        keywords.insert(JSON_OPTIONS.to_owned(), options);
    }
    TopLevelGrammar::from_json_schema(schema)
}

/// A text as a regular expression that matches it alone.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_punctuation() {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// A compiled constraint, at the beginning or somewhere in a continuation. A clone goes its own way.
pub struct Constraint {
    kind: &'static str,
    matcher: Matcher,
    twins: Arc<Twins>,
}

impl Clone for Constraint {
    fn clone(&self) -> Self {
        // not `clone`, whose copies share the states of a lexer behind a lock
        let twins = Arc::clone(&self.twins);
        Constraint { kind: self.kind, matcher: self.matcher.deep_clone(), twins }
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The tokens that may follow.
pub(super) struct AllowedTokens(SimpleVob);

impl AllowedTokens {
    /// Whether a token may follow.
    pub(super) fn contains(&self, token_id: u32) -> bool {
        (token_id as usize) < self.0.len() && self.0.is_allowed(token_id)
    }
}

impl Constraint {
    /// Whether only the end may follow.
    pub(super) fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && self.matcher.stop_reason().is_ok()
    }

    /// The tokens that may follow, among them those that end the sequence where the text may end.
    pub(super) fn allowed(&mut self) -> Result<AllowedTokens, JobError> {
        let mut tokens = self.matcher.compute_mask().map_err(|error| self.failed(&error.to_string()))?;
        for (twin, in_trie) in self.twins.iter() {
            if tokens.is_allowed(in_trie) {
                tokens.allow_token(twin);
            }
        }
        Ok(AllowedTokens(tokens))
    }

    /// Goes on behind a token that is allowed.
    pub(super) fn push(&mut self, token_id: u32) -> Result<(), JobError> {
        self.matcher.consume_token(token_id).map_err(|error| self.failed(&error.to_string()))?;
        let reason = self.matcher.stop_reason();
        if reason.is_ok() { Ok(()) } else { Err(self.failed(&reason.to_string())) }
    }

    fn failed(&self, problem: &str) -> JobError {
        JobError::Constraint { problem: format!("{}: {}", self.kind, first_line(problem)) }
    }
}

/// Compiles constraints for the vocabulary of a model.
pub(super) struct Constraints {
    generator: Generator,
    /// Made by the first constraint.
    vocabulary: OnceLock<Result<Vocabulary, Unusable>>,
}

impl fmt::Debug for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraints").finish_non_exhaustive()
    }
}

impl Constraints {
    pub(super) fn new(generator: &Generator) -> Self {
        Constraints { generator: generator.clone(), vocabulary: OnceLock::new() }
    }

    pub(super) fn compile(&self, kind: &ConstraintKind) -> Result<Constraint, Refusal> {
        let tokenizer = self.generator.model().tokenizer().ok_or(Error::NoTokenizer)?;
        let grammar = kind.grammar()?;
        let vocabulary = self.vocabulary.get_or_init(|| {
            let config = self.generator.model().config();
            Vocabulary::new(tokenizer, config.vocab_size, self.generator.eos_token_ids())
        });
        let vocabulary = vocabulary.as_ref().map_err(|unusable| kind.refused(&unusable.problem))?;
        let parser = vocabulary.factory.create_parser(grammar);
        let parser = parser.map_err(|error| kind.refused(first_line(&format!("{error:#}"))))?;
        let mut matcher = Matcher::new(Ok(parser));
        if let Some(problem) = matcher.get_error() {
            return Err(kind.refused(first_line(&problem)));
        }
        if let Some(warning) = matcher.grammar_warnings().first() {
            return Err(kind.refused(first_line(warning)));
        }
        Ok(Constraint { kind: kind.name(), matcher, twins: Arc::clone(&vocabulary.twins) })
    }

    /// Refuses a job whose options contradict its constraint.
    pub(super) fn check(&self, job: &Job) -> Result<(), Refusal> {
        let Some(constraint) = &job.constraint else { return Ok(()) };
        let refused =
            |problem: &str| Err(Refusal::Constraint { kind: constraint.kind, problem: problem.to_owned() });
        if job.options.eos_token_ids.as_deref().is_some_and(|ids| ids != self.generator.eos_token_ids()) {
            return refused(
                "it ends with the end-of-sequence tokens of the model; do not replace or ignore them",
            );
        }
        if !job.generates {
            return refused("no token is generated");
        }
        Ok(())
    }
}

/// Without what is added for debugging.
fn first_line(problem: &str) -> String {
    problem.lines().next().unwrap_or_default().to_owned()
}
