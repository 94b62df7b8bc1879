use super::*;

const ATTENTION: CachedAttention = CachedAttention { layer: 0, heads: 8, kv_heads: 4, scale_bits: 0 };

fn float32(shape: &[usize]) -> ValueType {
    (f32::datum_type(), shape.iter().map(|size| size.to_dim()).collect())
}

fn int32(shape: &[usize]) -> ValueType {
    (i32::datum_type(), float32(shape).1)
}

fn int64(shape: &[usize]) -> ValueType {
    (i64::datum_type(), float32(shape).1)
}

#[test]
fn attention_has_the_type_of_its_queries_if_all_operands_fit() {
    let (heads, places) = (float32(&[2, 3, 128]), [int32(&[2]), int32(&[])]);
    let keys = float32(&[2, 3, 64]);
    let of = |operands: &[ValueType]| ATTENTION.result_types(operands);
    let [last, longest] = places;
    let right = [heads.clone(), keys.clone(), keys.clone(), last, longest];
    assert_eq!(of(&right).unwrap().as_slice(), std::slice::from_ref(&heads));

    let mut of_unknown_width = right.clone();
    of_unknown_width[0].1[2] = SymbolScope::default().sym("width").to_dim();
    of(&of_unknown_width).unwrap();

    let wrong: [(usize, ValueType); 8] = [
        (0, int32(&[2, 3, 128])),
        (0, float32(&[6, 128])),
        (0, float32(&[2, 3, 7])),
        (0, float32(&[2, 3, 64])),
        (1, float32(&[2, 3, 0])),
        (1, float32(&[2, 3, 128])),
        (2, float32(&[2, 3, 16])),
        (3, float32(&[2])),
    ];
    for (index, operand) in wrong {
        let mut operands = right.clone();
        operands[index] = operand.clone();
        assert!(of(&operands).is_err(), "{operand:?} as operand {index}");
    }
    assert!(of(&right[..4]).is_err());
}

#[test]
fn rotated_heads_have_their_type_if_all_operands_fit() {
    let (heads, table) = (float32(&[2, 3, 128]), float32(&[6, 8]));
    let right = [heads.clone(), int64(&[2, 3]), table.clone(), table];
    let of = |operands: &[ValueType]| RotaryEmbedding.result_types(operands);
    assert_eq!(of(&right).unwrap().as_slice(), std::slice::from_ref(&heads));
    for (index, operand) in [
        (0, float32(&[6, 128])),
        (1, float32(&[2, 3])),
        (1, int64(&[6])),
        (2, float32(&[8])),
        (3, int64(&[6, 8])),
    ] {
        let mut operands = right.clone();
        operands[index] = operand.clone();
        assert!(of(&operands).is_err(), "{operand:?} as operand {index}");
    }
    assert!(of(&right[..3]).is_err());
}
