use super::*;

#[test]
fn a_block_is_quantized_to_the_nearest_of_255_steps() {
    let x: [f32; 32] = std::array::from_fn(|column| column as f32 - 20.3);
    let (mut values, mut sums) = ([0; 32], [0; 2]);
    let scale = quantize_row(&x, &mut values, &mut sums, 1);
    for (value, x) in values.iter().zip(x) {
        assert!((f32::from(*value) * scale - x).abs() <= 0.5001 * scale);
    }
    assert_eq!(values[0], -127);
    assert_eq!(sums[0], values[..16].iter().map(|value| i32::from(*value)).sum::<i32>());
    assert_eq!(sums[1], values[16..].iter().map(|value| i32::from(*value)).sum::<i32>());
}

#[test]
fn a_block_with_infinity_or_nan_has_a_scale_of_nan() {
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = [1.0; 32];
        x[17] = special;
        let (mut values, mut sums) = ([1; 32], [1]);
        assert!(quantize_row(&x, &mut values, &mut sums, 1).is_nan());
        assert_eq!((values, sums), ([0; 32], [0]));
    }
}

#[test]
fn zeros_and_subnormal_scales_become_zeros() {
    for small in [0.0, -0.0, 1e-40, f32::MIN_POSITIVE] {
        let (mut values, mut sums) = ([1; 32], [1]);
        let scale = quantize_row(&[small; 32], &mut values, &mut sums, 1);
        assert!(scale.is_finite() && values == [0; 32]);
    }
}
