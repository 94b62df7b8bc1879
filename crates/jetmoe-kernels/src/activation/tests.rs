use super::*;

#[test]
fn the_exponential_is_right_to_the_last_places() {
    for step in -8700..=8800 {
        let x = step as f32 / 100.0;
        let (found, expected) = (exp(x), f64::from(x).exp());
        let error = (f64::from(found) - expected).abs() / expected;
        assert!(error < 3e-7, "e^{x} is {found}, not {expected}");
    }
    assert!(exp(f32::NAN).is_nan());
    assert_eq!(exp(0.0), 1.0);
}

#[test]
fn every_activation_is_its_formula() {
    type Formula = fn(f64) -> f64;
    let formulas: [(Activation, Formula); 4] = [
        (Activation::Silu, |x| x / (1.0 + (-x).exp())),
        (Activation::Gelu, |x| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt()))),
        (Activation::GeluTanh, |x| {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
        }),
        (Activation::Relu, |x| x.max(0.0)),
    ];
    for (activation, formula) in formulas {
        for step in -60..60 {
            let x = step as f32 / 4.0;
            let mut products = [3.0; 32];
            products[..16].fill(x);
            let mut gated = [0.0; 32];
            activation.gate(&products, &mut gated, 16);
            let expected = 3.0 * formula(f64::from(x));
            let found = f64::from(gated[31]);
            assert!(
                (found - expected).abs() < 1e-5 * (1.0 + expected.abs()),
                "{activation:?} of {x}: {found}"
            );
            assert_eq!(gated[..16], [0.0; 16]);
        }
    }
}

#[test]
fn activations_have_the_names_that_released_graphs_contain() {
    let names: Vec<&str> = Activation::ALL.iter().map(|activation| activation.name()).collect();
    assert_eq!(names, ["silu", "gelu", "gelu_tanh", "relu"]);
    assert_eq!(Activation::from_name("gelu_tanh"), Some(Activation::GeluTanh));
    assert_eq!(Activation::from_name("tanh"), None);
}
