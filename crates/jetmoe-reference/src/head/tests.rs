use super::*;

#[test]
fn a_sequence_is_classified_at_its_last_token_that_is_not_padding() {
    let left = [0, 0, 5, 6];
    let right = [5, 6, 0, 0];
    let inside = [5, 0, 7, 0];
    let ids = [left, right, inside].concat();
    assert_eq!(last_tokens(&ids, 3, 4, Some(0)).unwrap(), [3, 5, 10]);
}

#[test]
fn a_sequence_of_padding_only_is_classified_at_its_first_token() {
    assert_eq!(last_tokens(&[4, 4, 7, 4, 4, 4], 2, 3, Some(4)).unwrap(), [2, 3]);
}

#[test]
fn without_a_padding_token_one_sequence_is_classified_at_its_last_token_and_a_batch_is_refused() {
    assert_eq!(last_tokens(&[5, 6, 0], 1, 3, None).unwrap(), [2]);
    let error = last_tokens(&[5, 6, 5, 6], 2, 2, None).unwrap_err();
    assert!(matches!(error, Error::NoPaddingToken { batch_size: 2 }), "{error}");
}

#[test]
fn what_cannot_be_classified_is_an_error() {
    let error = last_tokens(&[], 1, 0, None).unwrap_err();
    assert!(matches!(error, Error::EmptyInputs { batch_size: 1, sequence_length: 0 }), "{error}");
    let error = last_tokens(&[5, 6, 7], 2, 2, Some(0)).unwrap_err();
    assert!(matches!(error, Error::InputLength { rows: 2, columns: 2, found: 3, .. }), "{error}");
}

#[test]
fn a_head_that_the_checkpoint_lacks_is_named() {
    let heads = Heads { language_model: None, score: None };
    let hidden = Tensor::zeros((1, 1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(heads.logits(&hidden).unwrap_err().to_string().contains("lm_head.weight"));
    assert!(heads.class_logits(&hidden, &[1], None).unwrap_err().to_string().contains("score.weight"));
}
