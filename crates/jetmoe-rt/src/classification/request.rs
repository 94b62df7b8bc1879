//! What is to be classified.

use jetmoe_backend::CancellationToken;

use super::ClassificationOptions;

/// One input of a classifier. Texts and pairs of texts convert into it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClassifierInput {
    /// A text, encoded with special tokens.
    Text(String),
    /// Two texts that are one input, as a query and a passage for a cross-encoder: encoded as the tokenizer's post-processor
    /// joins pairs.
    Pair {
        /// The first text.
        text: String,
        /// The second text.
        text_pair: String,
    },
}

impl ClassifierInput {
    /// The text, or the first text of a pair.
    pub fn text(&self) -> &str {
        match self {
            ClassifierInput::Text(text) | ClassifierInput::Pair { text, .. } => text,
        }
    }

    /// The second text of a pair.
    pub fn text_pair(&self) -> Option<&str> {
        match self {
            ClassifierInput::Text(_) => None,
            ClassifierInput::Pair { text_pair, .. } => Some(text_pair),
        }
    }
}

impl From<String> for ClassifierInput {
    fn from(text: String) -> Self {
        ClassifierInput::Text(text)
    }
}

impl From<&String> for ClassifierInput {
    fn from(text: &String) -> Self {
        ClassifierInput::Text(text.clone())
    }
}

impl From<&str> for ClassifierInput {
    fn from(text: &str) -> Self {
        ClassifierInput::Text(text.to_owned())
    }
}

impl From<&&str> for ClassifierInput {
    fn from(text: &&str) -> Self {
        ClassifierInput::Text((*text).to_owned())
    }
}

impl<A: Into<String>, B: Into<String>> From<(A, B)> for ClassifierInput {
    fn from((text, text_pair): (A, B)) -> Self {
        ClassifierInput::Pair { text: text.into(), text_pair: text_pair.into() }
    }
}

/// What to classify: any number of texts or pairs of texts, with the options that hold for all of them.
///
/// ```
/// use jetmoe_rt::{ClassificationOptions, ClassificationRequest};
///
/// let one = ClassificationRequest::new("And Jacob served seven years for Rachel.");
/// let several = ClassificationRequest::batch(["first text", "second text"])
///     .with_options(ClassificationOptions::default().with_max_tokens(512));
/// let pairs = ClassificationRequest::batch([("a query", "a passage"), ("a query", "another passage")]);
/// # let _ = (one, several, pairs);
/// ```
#[derive(Debug, Clone)]
pub struct ClassificationRequest {
    pub(super) inputs: Vec<ClassifierInput>,
    pub(super) options: ClassificationOptions,
    pub(super) cancellation: CancellationToken,
}

impl ClassificationRequest {
    /// A request with one input.
    pub fn new(input: impl Into<ClassifierInput>) -> Self {
        Self::batch([input])
    }

    /// A request with any number of inputs. Results are in their order.
    pub fn batch<I: Into<ClassifierInput>>(inputs: impl IntoIterator<Item = I>) -> Self {
        ClassificationRequest {
            inputs: inputs.into_iter().map(Into::into).collect(),
            options: ClassificationOptions::default(),
            cancellation: CancellationToken::new(),
        }
    }

    /// Sets the options.
    #[must_use]
    pub fn with_options(mut self, options: ClassificationOptions) -> Self {
        self.options = options;
        self
    }

    /// Ends the classification when `token` is cancelled, from any thread: between two batches, and in the middle of one if the
    /// backend can be told. [`TextClassifier::classify`](super::TextClassifier::classify) then fails with
    /// [`Error::Cancelled`](crate::Error::Cancelled),
    /// [`TextClassifier::classify_each`](super::TextClassifier::classify_each) keeps what was classified.
    #[must_use]
    pub fn with_cancellation(mut self, token: &CancellationToken) -> Self {
        self.cancellation = token.clone();
        self
    }

    /// The inputs.
    pub fn inputs(&self) -> &[ClassifierInput] {
        &self.inputs
    }
}
