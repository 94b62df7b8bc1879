/// How far results may lie from what is expected. Levels are named by their reason; nothing in a test spells a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// Float32 arithmetic in another order of summation. A correct implementation, written in NumPy from the model's
    /// definition alone, is within 2.5e-5 of transformers in every tensor of the golden cases; a wrong norm epsilon,
    /// the smallest mistake seen in the field, shows as 4.5e-3.
    Float32,
}

impl Tolerance {
    /// Largest absolute error of logits whose largest is about 10, as those of the golden cases.
    pub fn logits_absolute(self) -> f64 {
        match self {
            Tolerance::Float32 => 2e-4,
        }
    }

    /// Largest absolute error of logits whose largest is `scale`. Rounding grows with the values, so where they go far
    /// beyond the golden ones the share of other tensors counts: a model of full width with random weights has logits
    /// of 70.
    pub fn logits(self, scale: f64) -> f64 {
        const FAR_BEYOND_THE_GOLDEN_ONES: f64 = 20.0;
        if scale <= FAR_BEYOND_THE_GOLDEN_ONES { self.logits_absolute() } else { self.relative() * scale }
    }

    /// Largest error of every other tensor, as a share of its largest expected value.
    pub fn relative(self) -> f64 {
        match self {
            Tolerance::Float32 => 2e-5,
        }
    }
}
