//! scratch
use jetmoe_checkpoint::Checkpoint;
use jetmoe_reference::*;
use candle_core::*;
#[test]
fn perplexity() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/jetmoe-mini");
    let start = std::time::Instant::now();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let reference = Reference::load(&checkpoint).unwrap();
    println!("load {:?}", start.elapsed());
    let tokenizer = checkpoint.tokenizer().unwrap().unwrap();
    let mut nll = 0.0; let mut n = 0usize; let mut worst = 0;
    let start = std::time::Instant::now();
    for line in std::fs::read_to_string(folder.join("eval.jsonl")).unwrap().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let ids: Vec<i64> = tokenizer.encode(value["text"].as_str().unwrap(), true).unwrap().into_iter().map(i64::from).collect();
        for w in ids.chunks(256) {
            if w.len() < 2 { continue }
            let pos: Vec<i64> = (0..w.len() as i64).collect();
            let o = reference.forward(&Inputs { input_ids: w, attention_mask: &vec![1; w.len()], position_ids: &pos, batch_size: 1, sequence_length: w.len() }, &mut Cache::new()).unwrap();
            let logits = reference.logits(&o.last_hidden_state).unwrap().squeeze(0).unwrap();
            let lp = candle_nn::ops::log_softmax(&logits, 1).unwrap().narrow(0, 0, w.len() - 1).unwrap();
            let t = Tensor::from_slice(&w[1..], (w.len() - 1, 1), &Device::Cpu).unwrap();
            let s = lp.gather(&t, 1).unwrap().to_dtype(DType::F64).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            nll -= s; n += w.len() - 1; worst += 1;
        }
    }
    println!("windows {worst} tokens {n} nll {} ppl {} in {:?}", nll / n as f64, (nll / n as f64).exp(), start.elapsed());
}
