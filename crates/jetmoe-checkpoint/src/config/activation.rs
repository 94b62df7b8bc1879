use std::fmt;
use std::str::FromStr;

/// Activation of the MLP experts, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `silu`: x · sigmoid(x).
    Silu,
    /// `gelu`: x · Φ(x), by the error function.
    Gelu,
    /// `gelu_new` and `gelu_pytorch_tanh`: the tanh approximation, ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
    GeluTanh,
    /// `relu`: max(x, 0).
    Relu,
}

impl Activation {
    /// The names that are understood, for messages.
    pub const NAMES: &'static str = "silu, gelu, gelu_new, gelu_pytorch_tanh, relu";
}

impl FromStr for Activation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "silu" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(format!("{other:?} is not supported; known are {}", Self::NAMES)),
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Activation::Silu => "silu",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
            Activation::Relu => "relu",
        })
    }
}
