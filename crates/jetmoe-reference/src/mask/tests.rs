use super::*;

fn visible(mask: &[i64], batch: usize, cached: usize) -> Vec<Vec<Vec<bool>>> {
    let mask = Tensor::from_slice(mask, (batch, mask.len() / batch), &Device::Cpu).unwrap();
    let bias = attention_bias(&mask, cached).unwrap().squeeze(1).unwrap().squeeze(1).unwrap();
    let rows = bias.to_vec3::<f32>().unwrap();
    assert!(rows.iter().flatten().flatten().all(|bias| *bias == 0.0 || *bias == f32::MIN));
    rows.into_iter()
        .map(|rows| rows.into_iter().map(|row| row.into_iter().map(|bias| bias == 0.0).collect()).collect())
        .collect()
}

#[test]
fn a_query_attends_to_itself_and_earlier_keys_but_not_to_padding() {
    let (no, yes) = (false, true);
    assert_eq!(
        visible(&[1, 1, 1, 0, 1, 1], 2, 0),
        [[[yes, no, no], [yes, yes, no], [yes, yes, yes]], [[no, no, no], [no, yes, no], [no, yes, yes]]]
    );
}

#[test]
fn a_query_after_a_cache_attends_to_cached_tokens_but_not_to_padding() {
    let (no, yes) = (false, true);
    assert_eq!(visible(&[0, 1, 1, 1], 1, 2), [[[no, yes, yes, no], [no, yes, yes, yes]]]);
}
