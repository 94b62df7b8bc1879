//! The experts of tokens, as jobs report them and metrics count them.

use super::*;

#[test]
fn a_token_is_reported_with_the_experts_of_the_token_before_it() {
    let model = FakeModel::hashed().with_routing();
    let engine = start(&model, options());
    assert!(engine.observes_experts());
    let prompt: Vec<u32> = (50..59).collect();
    let found = run(&engine, Job::new(prompt.clone(), endless(4)).with_experts(true));
    let before = [&prompt[8..], &found.token_ids()].concat();
    assert_eq!(found.experts.len(), 4);
    for (experts, token) in found.experts.iter().zip(before) {
        assert_eq!(experts.len(), model.config.num_hidden_layers);
        for (layer, parts) in experts.iter().enumerate() {
            assert_eq!(*parts, [0, 1].map(|part| fake::experts(&model.config, token, layer, part)));
        }
    }
    let silent = run(&engine, Job::new([50], endless(2)));
    assert!(silent.experts.iter().all(|experts| experts.is_empty()));
}

#[test]
fn every_assignment_of_every_token_is_counted() {
    let model = FakeModel::hashed().with_routing();
    let engine = start(&model, options());
    run(&engine, Job::new([50, 51, 52], endless(4)));
    wait_until("rest", || engine.load() == EngineLoad::default());
    let mut registry = Registry::default();
    engine.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("jetmoe_engine_expert_tokens_total{"));
    let counts: Vec<u64> = lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    let config = &model.config;
    assert_eq!(counts.len(), config.num_hidden_layers * 2 * config.num_local_experts);
    // 3 tokens of the prompt and 3 of the continuation were read
    let assignments = 6 * config.num_hidden_layers * 2 * config.num_experts_per_token;
    assert_eq!(counts.iter().sum::<u64>(), assignments as u64);
    assert!(text.contains("jetmoe_engine_generated_tokens_total 4"), "{text}");
    assert!(text.contains("jetmoe_engine_prompt_tokens_total 3"), "{text}");
}
