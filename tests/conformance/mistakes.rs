//! A comparison that cannot fail proves nothing: models with one fault, each of which must be found.

use jetmoe::checkpoint::names::{self, Mixture};
use jetmoe::conformance::Comparison;
use jetmoe_testing::CheckpointDraft;
use serde_json::json;

use crate::fixtures::Case;
use crate::subject::Subject;
use crate::suite::{Suite, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    suite.add_group(
        subject,
        "mistakes",
        named![
            an_unchanged_copy_of_a_checkpoint_passes,
            one_changed_norm_weight_is_found_where_it_begins,
            one_changed_weight_of_one_expert_is_found,
            keys_taken_for_values_are_found_in_the_cache,
            gate_and_up_projection_in_the_wrong_order_are_found,
            tokens_sent_to_the_wrong_experts_lower_the_router_agreement,
            a_missing_expert_bias_is_found,
            a_wrong_value_in_the_configuration_is_found,
            the_configured_epsilon_changes_what_comes_after_the_final_norm_and_nothing_else,
            another_greedy_token_is_named_with_its_place,
        ],
    );
    if !subject.is_reference() {
        suite.add_group(
            subject,
            "mistakes",
            named![the_configured_epsilon_in_the_norms_of_the_layers_is_found],
        );
    }
}

/// Compares a copy of the case `tiny` that has a fault with what the right one must compute.
fn compare_changed(subject: Subject, what: &str, change: impl FnOnce(&mut CheckpointDraft)) -> Comparison {
    let tiny = Case::named("tiny");
    let expectation = tiny.export().expectation(subject, tiny.golden());
    subject.compare(&tiny.export_changed(what, change).load(subject), &expectation)
}

/// Checks that a fault in a copy of the case `tiny` is found.
#[track_caller]
fn assert_found(subject: Subject, what: &str, fault: impl FnOnce(&mut CheckpointDraft)) -> Comparison {
    let comparison = compare_changed(subject, what, fault);
    assert!(!comparison.passed, "{subject} passed with {what}");
    comparison
}

fn failed(comparison: &Comparison) -> Vec<&str> {
    let failed = comparison.tensors.iter().filter(|tensor| !tensor.passed);
    failed.map(|tensor| tensor.name.as_str()).collect()
}

fn an_unchanged_copy_of_a_checkpoint_passes(subject: Subject) {
    let comparison = compare_changed(subject, "no change", |_| ());
    assert!(comparison.passed, "{comparison:#?}");
}

fn one_changed_norm_weight_is_found_where_it_begins(subject: Subject) {
    let comparison = assert_found(subject, "a changed norm weight", |draft| {
        draft.weight(&names::post_attention_norm(1))[7] += 1e-2;
    });
    let failed = failed(&comparison);
    assert!(failed.contains(&"mlp_router_logits.*") && failed.contains(&"logits"), "{failed:?}");
    // the last layer's keys come before its second norm
    assert!(!failed.contains(&"present.*.key"), "{failed:?}");
    let hidden = comparison.tensors.iter().find(|tensor| tensor.name == "hidden_states.*").unwrap();
    assert_eq!(hidden.worst, "hidden_states.2");
}

fn one_changed_weight_of_one_expert_is_found(subject: Subject) {
    assert_found(subject, "a changed weight of an MLP expert", |draft| {
        draft.row(&names::expert_output(1, Mixture::Mlp), 3)[100] += 1e-2;
    });
    assert_found(subject, "a changed weight of an attention expert", |draft| {
        draft.row(&names::expert_input(0, Mixture::Attention), 5)[100] += 1e-2;
    });
}

fn keys_taken_for_values_are_found_in_the_cache(subject: Subject) {
    let comparison = assert_found(subject, "values before keys", |draft| {
        let projection = draft.weight(&names::kv_projection(0));
        let half = projection.len() / 2;
        projection.rotate_left(half);
    });
    let failed = failed(&comparison);
    assert!(failed.contains(&"present.*.key") && failed.contains(&"present.*.value"), "{failed:?}");
}

fn gate_and_up_projection_in_the_wrong_order_are_found(subject: Subject) {
    assert_found(subject, "up before gate", |draft| {
        for expert in 0..8 {
            let input = draft.row(&names::expert_input(0, Mixture::Mlp), expert);
            let half = input.len() / 2;
            input.rotate_left(half);
        }
    });
}

fn tokens_sent_to_the_wrong_experts_lower_the_router_agreement(subject: Subject) {
    let comparison = assert_found(subject, "two rows of a router swapped", |draft| {
        draft.swap_rows(&names::router(0, Mixture::Mlp), 0, 1);
    });
    assert!(comparison.router_agreement.unwrap() < 1.0, "{comparison:#?}");
}

fn a_missing_expert_bias_is_found(subject: Subject) {
    for mixture in [Mixture::Attention, Mixture::Mlp] {
        assert_found(subject, &format!("{mixture:?} biases of zero"), |draft| {
            draft.weight(&names::expert_bias(1, mixture)).fill(0.0);
        });
    }
}

fn a_wrong_value_in_the_configuration_is_found(subject: Subject) {
    let wrong = [
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": 10_100.0})),
        ("rope_parameters", json!({"rope_type": "linear", "factor": 1.001, "rope_theta": 10_000.0})),
        ("activation_function", json!("gelu")),
        ("num_experts_per_tok", json!(3)),
    ];
    for (key, value) in wrong {
        assert_found(subject, &format!("{key} = {value}"), |draft| {
            draft.config.insert(key.to_owned(), value.clone());
            if key == "num_experts_per_tok" {
                draft.config.insert("num_attention_heads".to_owned(), json!(12));
            }
        });
    }
}

/// The golden cases alone would not tell an epsilon of 1e-5 in the final norm from one of 1e-6.
fn the_configured_epsilon_changes_what_comes_after_the_final_norm_and_nothing_else(subject: Subject) {
    let comparison = assert_found(subject, "a larger epsilon", |draft| {
        draft.config.insert("rms_norm_eps".to_owned(), json!(1e-2));
    });
    let after = ["last_hidden_state", "logits", "next.logits"];
    let is_after = |name: &str| after.contains(&name);
    for tensor in &comparison.tensors {
        assert_eq!(tensor.passed, !is_after(&tensor.name), "{} on {}", tensor.name, comparison.backend);
    }
}

fn another_greedy_token_is_named_with_its_place(subject: Subject) {
    let comparison = assert_found(subject, "the embeddings of tokens 40 and 41 swapped", |draft| {
        draft.swap_rows(names::EMBEDDING, 40, 41);
    });
    // with other weights than the golden ones neither token is ever the best
    if Case::named("tiny").export().is_exact(subject) {
        let greedy = comparison.greedy.unwrap();
        assert!(!greedy.identical);
        // the first place where the golden continuations have either token
        assert_eq!(greedy.first_difference.unwrap(), "sequence 2, new token 13: 41 instead of 40");
    }
}

/// The two norms of every layer use 1e-6 whatever the configuration says, which is easily missed. The configuration
/// cannot express the mistake, so the number is changed in the graph.
fn the_configured_epsilon_in_the_norms_of_the_layers_is_found(subject: Subject) {
    for case in ["tiny", "odd", "jetmoe-mini"].map(Case::named) {
        let changed = case.export_with_changed_graphs("another epsilon", |content| change_epsilon(content));
        let expectation = case.export().expectation(subject, case.golden());
        let comparison = subject.compare(&changed.load(subject), &expectation);
        assert!(!comparison.passed, "{comparison:#?}");
    }
}

/// Turns 1e-6 into 1e-5 in the norms of the layers: the one constant of a graph, or the attributes of a native one, whose final norm
/// comes last and keeps its own.
fn change_epsilon(content: &mut [u8]) {
    let (right, wrong) = (1e-6_f32.to_le_bytes(), 1e-5_f32.to_le_bytes());
    let offsets = content.windows(4).enumerate().filter(|(_, bytes)| *bytes == right);
    let offsets: Vec<usize> = offsets.map(|(offset, _)| offset).collect();
    let norms = content.windows(7).filter(|bytes| bytes == b"epsilon").count();
    let wanted = match norms.checked_sub(1) {
        None => {
            assert_eq!(offsets.len(), 1, "the epsilon is one constant of the graph");
            1
        }
        Some(of_layers) => {
            assert!([of_layers, norms].contains(&offsets.len()), "{offsets:?} in {norms} norms");
            of_layers
        }
    };
    for offset in &offsets[..wanted] {
        let offset = *offset;
        content[offset..][..4].copy_from_slice(&wrong);
    }
}
