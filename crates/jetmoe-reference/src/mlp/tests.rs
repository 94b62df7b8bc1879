use candle_core::Device;

use super::*;

/// The arguments are at most 3, so a few float32 roundings stay below this.
const FLOAT32: f64 = 1e-6;

#[test]
fn activations_are_those_of_their_names() {
    let arguments = [-3.0_f32, -1.0, -0.25, 0.0, 0.5, 2.0];
    let expected = [
        (
            Activation::Silu,
            [-1.422776195e-01, -2.689414214e-01, -1.094558748e-01, 0.0, 3.112296656e-01, 1.761594156e+00],
        ),
        (
            Activation::Gelu,
            [-4.049694095e-03, -1.586552539e-01, -1.003234186e-01, 0.0, 3.457312306e-01, 1.954499736e+00],
        ),
        (
            Activation::GeluTanh,
            [-3.637392082e-03, -1.588080094e-01, -1.003246493e-01, 0.0, 3.457140098e-01, 1.954597694e+00],
        ),
        (Activation::Relu, [0.0, 0.0, 0.0, 0.0, 0.5, 2.0]),
    ];
    for (activation, expected) in expected {
        let found = activate(activation, &Tensor::new(&arguments, &Device::Cpu).unwrap()).unwrap();
        for (found, expected) in found.to_vec1::<f32>().unwrap().into_iter().zip(expected) {
            assert!(
                (f64::from(found) - expected).abs() <= FLOAT32,
                "{activation}: {found} is not {expected}"
            );
        }
    }
}
