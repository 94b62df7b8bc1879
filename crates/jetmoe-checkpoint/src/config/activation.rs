//! Activation functions of the MLP experts.

/// Activation of the MLP experts, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumString)]
pub enum Activation {
    /// `silu`, also called `swish`: x · sigmoid(x).
    #[strum(to_string = "silu", serialize = "swish")]
    Silu,
    /// `gelu` and `gelu_python`: x · Φ(x), with the error function.
    #[strum(to_string = "gelu", serialize = "gelu_python")]
    Gelu,
    /// `gelu_new`, `gelu_fast`, `gelu_accurate` and `gelu_pytorch_tanh`: the tanh approximation, ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
    #[strum(
        to_string = "gelu_pytorch_tanh",
        serialize = "gelu_new",
        serialize = "gelu_fast",
        serialize = "gelu_accurate"
    )]
    GeluTanh,
    /// `relu`: max(x, 0).
    #[strum(to_string = "relu")]
    Relu,
}

impl Activation {
    /// The accepted names, for messages.
    pub(super) const NAMES: &str = "silu, gelu, gelu_new, gelu_pytorch_tanh, relu";
}
