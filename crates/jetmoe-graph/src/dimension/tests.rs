use super::*;
use proptest::prelude::*;

fn named(name: &str) -> Dimension {
    Dimension::symbol(name)
}

#[test]
fn equal_sizes_compare_equal_however_they_were_computed() {
    let (batch, sequence) = (named("batch_size"), named("sequence_length"));
    let slots = Dimension::from(2_i64);
    assert_eq!(&(&batch * &sequence) * &slots, &(&slots * &sequence) * &batch);
    assert_eq!(&batch + &batch, &slots * &batch);
}

#[test]
fn sizes_print_as_a_reader_would_write_them() {
    let total = &named("past_sequence_length") + &named("sequence_length");
    assert_eq!(total.to_string(), "past_sequence_length + sequence_length");
    let rows = &(&named("batch_size") * &named("sequence_length")) * &Dimension::from(2_i64);
    assert_eq!(rows.to_string(), "2 * batch_size * sequence_length");
    assert_eq!(Dimension::from(0_i64).to_string(), "0");
    assert_eq!((&named("a") + &Dimension::from(-3_i64)).to_string(), "-3 + a");
}

#[test]
fn shapes_broadcast_by_numpys_rules() {
    let shape = |sizes: &[Dimension]| Shape(sizes.to_vec());
    let (batch, one, four) = (named("batch_size"), Dimension::from(1_i64), Dimension::from(4_i64));
    let wide = shape(&[batch.clone(), one.clone(), four.clone()]);
    assert_eq!(
        wide.broadcast(&shape(&[four.clone(), one])),
        Some(shape(&[batch.clone(), four.clone(), four.clone()]))
    );
    assert_eq!(wide.broadcast(&shape(&[])), Some(wide.clone()));
    assert_eq!(wide.broadcast(&shape(&[batch])), None);
}

fn polynomial() -> impl Strategy<Value = Dimension> {
    let monomial = (-5_i64..5, proptest::collection::vec(prop_oneof!["a", "b", "c"], 0..3));
    proptest::collection::vec(monomial, 0..4).prop_map(|monomials| {
        monomials.into_iter().fold(Dimension::from(0_i64), |sum, (coefficient, symbols)| {
            let product = symbols
                .iter()
                .fold(Dimension::from(coefficient), |product, name| &product * &Dimension::symbol(name));
            &sum + &product
        })
    })
}

proptest! {
    #[test]
    fn arithmetic_commutes_and_distributes(a in polynomial(), b in polynomial(), c in polynomial()) {
        prop_assert_eq!(&a + &b, &b + &a);
        prop_assert_eq!(&a * &b, &b * &a);
        prop_assert_eq!(&a * &(&b + &c), &(&a * &b) + &(&a * &c));
    }
}
