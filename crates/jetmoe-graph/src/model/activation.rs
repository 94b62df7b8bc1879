//! The activation functions of the MLP experts. After transformers' `activations.py`.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use jetmoe_checkpoint::Activation;

use crate::Result;
use crate::builder::{Builder, Value};

/// The activation of the MLP experts, element by element; formulas are at [`Activation`].
pub(super) fn activate(builder: &mut Builder, activation: Activation, x: &Value) -> Result<Value> {
    match activation {
        Activation::Silu => {
            let gate = builder.sigmoid(x)?;
            builder.mul(x, &gate)
        }
        Activation::Relu => builder.relu(x),
        Activation::Gelu => {
            let scale = builder.float_like(x, FRAC_1_SQRT_2);
            let scaled = builder.mul(x, &scale)?;
            let error = builder.erf(&scaled)?;
            half_of_one_plus(builder, x, &error)
        }
        Activation::GeluTanh => {
            let coefficient = builder.float_like(x, 0.044_715);
            let scale = builder.float_like(x, FRAC_2_PI.sqrt());
            let square = builder.mul(x, x)?;
            let cube = builder.mul(&square, x)?;
            let cubic = builder.mul(&cube, &coefficient)?;
            let inner = builder.add(x, &cubic)?;
            let scaled = builder.mul(&inner, &scale)?;
            let bent = builder.tanh(&scaled)?;
            half_of_one_plus(builder, x, &bent)
        }
    }
}

/// ½ · x · (1 + share)
fn half_of_one_plus(builder: &mut Builder, x: &Value, share: &Value) -> Result<Value> {
    let (one, half) = (builder.float_like(x, 1.0), builder.float_like(x, 0.5));
    let share = builder.add(share, &one)?;
    let product = builder.mul(x, &share)?;
    builder.mul(&product, &half)
}
