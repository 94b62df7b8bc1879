//! Element types of stored weights.

/// Element type of a stored weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
pub enum Dtype {
    /// IEEE 754 binary32.
    #[strum(to_string = "float32")]
    F32,
    /// IEEE 754 binary16.
    #[strum(to_string = "float16")]
    F16,
    /// bfloat16: the upper half of a binary32.
    #[strum(to_string = "bfloat16")]
    Bf16,
    /// IEEE 754 binary64. No export stores it; it is read as float32, as transformers does by default.
    #[strum(to_string = "float64")]
    F64,
}

impl Dtype {
    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    pub(crate) fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        match dtype {
            safetensors::Dtype::F32 => Some(Dtype::F32),
            safetensors::Dtype::F16 => Some(Dtype::F16),
            safetensors::Dtype::BF16 => Some(Dtype::Bf16),
            safetensors::Dtype::F64 => Some(Dtype::F64),
            _ => None,
        }
    }

    pub(crate) fn to_safetensors(self) -> safetensors::Dtype {
        match self {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::F16 => safetensors::Dtype::F16,
            Dtype::Bf16 => safetensors::Dtype::BF16,
            Dtype::F64 => safetensors::Dtype::F64,
        }
    }
}
