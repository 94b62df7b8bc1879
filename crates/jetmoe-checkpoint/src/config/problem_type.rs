//! What a classifier is trained for.

/// What the logits of a classifier are trained for, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum ProblemType {
    /// `regression`: each logit is a value.
    Regression,
    /// `single_label_classification`: one class of several.
    SingleLabelClassification,
    /// `multi_label_classification`: any number of the classes, each by itself.
    MultiLabelClassification,
}
