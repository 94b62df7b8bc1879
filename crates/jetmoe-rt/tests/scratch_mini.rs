use jetmoe_artifact::OutputName;
use jetmoe_rt::*;
use std::time::Instant;
#[test]
fn scratch() {
    let ids: Vec<u32> = std::fs::read_to_string("/tmp/rt-ids").unwrap().split_whitespace().map(|w| w.parse().unwrap()).collect();
    let mut all = vec![];
    for runtime in [Runtime::Ort, Runtime::Tract] {
        let t = Instant::now();
        let model = Model::load("/tmp/rt-art/jetmoe-mini", &LoadOptions { runtime: Some(runtime), ..Default::default() }).unwrap();
        println!("{runtime} load {:?}", t.elapsed());
        let mut session = model.session().unwrap();
        let t = Instant::now();
        let out = session.step(&TokenBatch::left_padded(&[&ids], 0).unwrap()).unwrap();
        println!("{runtime} prefill {} {:?}", ids.len(), t.elapsed());
        let mut outs = vec![out];
        for _ in 0..2 {
            let t = Instant::now();
            for id in 0..40 { outs.push(session.step(&TokenBatch::next_tokens(&[100 + id])).unwrap()); }
            println!("{runtime} 40 steps {:?}", t.elapsed());
        }
        let batch = model.session().unwrap().step(&TokenBatch::left_padded(&[&ids[..5], &ids[..9]], 0).unwrap()).unwrap();
        let single = model.session().unwrap().step(&TokenBatch::left_padded(&[&ids[..5]], 0).unwrap()).unwrap();
        let d = &batch.last_logits(0).unwrap() - &single.last_logits(0).unwrap();
        println!("padding diff {}", d.iter().fold(0f32, |a, b| a.max(b.abs())));
        outs.push(batch);
        all.push(outs);
    }
    let mut worst = std::collections::BTreeMap::new();
    for (a, b) in all[0].iter().zip(&all[1]) {
        for (name, t) in a.tensors() {
            let d = (t - &b.tensors()[name]).iter().fold(0f32, |a, b| a.max(b.abs()));
            let w = worst.entry(match name { OutputName::HiddenState(_) => "hidden", OutputName::Logits => "logits", _ => "router" }).or_insert(0f32);
            *w = w.max(d);
        }
    }
    println!("{worst:?}");
}
