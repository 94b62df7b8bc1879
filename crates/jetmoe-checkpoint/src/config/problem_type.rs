//! What a classifier is trained for.

/// What the logits of a classifier are trained for, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumString)]
#[non_exhaustive]
pub enum ProblemType {
    /// `regression`: each logit is a value.
    #[strum(to_string = "regression")]
    Regression,
    /// `single_label_classification`: one class of several.
    #[strum(to_string = "single_label_classification")]
    SingleLabelClassification,
    /// `multi_label_classification`: any number of the classes, each by itself.
    #[strum(to_string = "multi_label_classification")]
    MultiLabelClassification,
}

impl ProblemType {
    /// The accepted names, for messages.
    pub(super) const NAMES: &str = "regression, single_label_classification, multi_label_classification";
}
