use candle_core::{Result, Tensor};

/// Sees the inputs of the products whose weights may be quantized: the attention and MLP experts, the projection to keys
/// and values, and the language-model head.
pub trait Observer {
    /// `rows`, `[rows, inputs]`, are about to be multiplied with the weight `tensor`, `[outputs, inputs]`, or with one
    /// expert's matrix of it. An expert that no token chose is not heard of.
    fn observe(&mut self, tensor: &str, expert: Option<usize>, rows: &[f32]);

    /// A layer is done with one more sequence.
    fn sequence_done(&mut self) {}
}

/// Who looks on: nobody when the model is run for its results.
pub(crate) struct Watch<'a>(Option<&'a mut dyn Observer>);

impl<'a> Watch<'a> {
    pub(crate) fn nobody() -> Self {
        Watch(None)
    }

    pub(crate) fn by(observer: &'a mut dyn Observer) -> Self {
        Watch(Some(observer))
    }

    /// Shows the inputs of a product, `[.., inputs]`.
    pub(crate) fn show(&mut self, tensor: &str, expert: Option<usize>, inputs: &Tensor) -> Result<()> {
        if let Some(observer) = &mut self.0 {
            observer.observe(tensor, expert, &inputs.flatten_all()?.to_vec1()?);
        }
        Ok(())
    }
}
