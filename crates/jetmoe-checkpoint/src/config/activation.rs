//! Activation functions of the MLP experts.

/// Activation of the MLP experts, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumString)]
pub enum Activation {
    /// `silu`: x · sigmoid(x).
    #[strum(to_string = "silu")]
    Silu,
    /// `gelu`: x · Φ(x), with the error function.
    #[strum(to_string = "gelu")]
    Gelu,
    /// `gelu_new` and `gelu_pytorch_tanh`: the tanh approximation, ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
    #[strum(to_string = "gelu_pytorch_tanh", serialize = "gelu_new")]
    GeluTanh,
    /// `relu`: max(x, 0).
    #[strum(to_string = "relu")]
    Relu,
}

impl Activation {
    /// The accepted names, for messages.
    pub(super) const NAMES: &str = "silu, gelu, gelu_new, gelu_pytorch_tanh, relu";
}
