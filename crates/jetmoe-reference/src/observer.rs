//! Hook on the inputs of quantizable products, for calibration.

use candle_core::{Result, Tensor};

/// Receives the inputs of every product whose weight may be quantized: attention and MLP experts, key/value projection,
/// language-model head.
pub trait Observer {
    /// `rows`, `[rows, inputs]`, is the input of the product with the weight `tensor`, `[outputs, inputs]`, or with one
    /// expert's matrix of it. It is not called for an expert without tokens.
    fn observe(&mut self, tensor: &str, expert: Option<usize>, rows: &[f32]);

    /// Called when a layer has processed one more sequence.
    fn sequence_done(&mut self) {}
}

/// An optional observer.
pub(crate) struct ActivationHook<'a>(Option<&'a mut dyn Observer>);

impl<'a> ActivationHook<'a> {
    pub(crate) fn none() -> Self {
        ActivationHook(None)
    }

    pub(crate) fn new(observer: &'a mut dyn Observer) -> Self {
        ActivationHook(Some(observer))
    }

    /// Passes the inputs of a product, `[.., inputs]`, to the observer.
    pub(crate) fn call(&mut self, tensor: &str, expert: Option<usize>, inputs: &Tensor) -> Result<()> {
        if let Some(observer) = &mut self.0 {
            observer.observe(tensor, expert, &inputs.flatten_all()?.to_vec1()?);
        }
        Ok(())
    }
}
