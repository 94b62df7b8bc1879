//! Outputs that are added to a copy of a graph: every graph that is written has the values, and a graph without one is refused.

use std::collections::{BTreeSet, HashSet};

use jetmoe_artifact::{CacheUpdate, ObservedValue, OutputName, Precision, Profile, Task};
use jetmoe_onnx::{Error, Graph, Model, ObservedGraph, observe};
use tempfile::tempdir;

use crate::checked::{Exported, every_export};
use crate::{Way, golden};

const EVERYTHING: [ObservedValue; 2] = [ObservedValue::AttentionMask, ObservedValue::Routing];

fn observe_model(exported: &Exported, model: &Model) -> Result<(Graph, ObservedGraph), Error> {
    let observed =
        observe(&exported.path(), &model.to_bytes(), &exported.config, &exported.record, &EVERYTHING.into())?;
    // the reader is the one that reads files
    let folder = tempdir().unwrap();
    let file = folder.path().join("observed.onnx");
    std::fs::write(&file, &observed.graph).unwrap();
    Ok((jetmoe_onnx::read(&file).unwrap().graph.unwrap(), observed))
}

#[test]
fn every_written_graph_can_be_observed_and_keeps_its_nodes() {
    let mut ways_of_masking = BTreeSet::new();
    every_export(|what, exported| {
        let what = format!("{what}, {} {}", exported.record.precision, exported.record.profile);
        let before = exported.model().graph.unwrap();
        let (graph, observed) =
            observe_model(exported, &exported.model()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(graph.node[..before.node.len()], before.node, "{what}");
        assert_eq!(graph.initializer[..before.initializer.len()], before.initializer, "{what}");
        assert_eq!(
            (&graph.input, &graph.output[..before.output.len()]),
            (&before.input, &before.output[..]),
            "{what}"
        );

        // every operand is known where it is read, and every name is new
        let mut known: HashSet<&str> = graph.input.iter().map(|input| input.name()).collect();
        let defaults: HashSet<&str> = known.clone();
        for tensor in &graph.initializer {
            assert!(
                known.insert(tensor.name()) || defaults.contains(tensor.name()),
                "{what}: {}",
                tensor.name()
            );
        }
        for node in &graph.node {
            assert!(node.input.iter().all(|operand| known.contains(operand.as_str())), "{what}: {node:?}");
            assert!(node.output.iter().all(|result| known.insert(result)), "{what}: {node:?}");
        }
        let outputs: Vec<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
        assert!(outputs.iter().all(|output| known.contains(output.as_str())), "{what}");
        let expected: Vec<String> =
            observed.signature.outputs.iter().map(|output| output.name.to_string()).collect();
        assert_eq!(
            outputs.iter().collect::<BTreeSet<_>>(),
            expected.iter().collect::<BTreeSet<_>>(),
            "{what}"
        );
        assert_eq!(outputs.len(), expected.len(), "{what}");
        let mask = match observed.signature.cache_update {
            CacheUpdate::Append => OutputName::AttentionBias,
            CacheUpdate::InPlace | CacheUpdate::InPlaceByMask => OutputName::AttendedKeys,
        };
        assert!(expected.contains(&mask.to_string()), "{what}");
        ways_of_masking.insert(mask);
    });
    assert_eq!(ways_of_masking.len(), 2);
}

/// Observes a graph after a change to it; returns why that fails.
fn refusal(profile: Profile, change: impl FnOnce(&mut Graph)) -> String {
    refusal_of(Precision::F32, profile, change)
}

fn refusal_of(precision: Precision, profile: Profile, change: impl FnOnce(&mut Graph)) -> String {
    let options = Way::new(precision, profile).options(Task::CausalLm);
    let exported = Exported::of(&golden("tiny"), &options);
    let mut model = exported.model();
    change(model.graph.as_mut().unwrap());
    let error = observe_model(&exported, &model).unwrap_err();
    assert!(matches!(error, Error::NotObservable { .. }), "{error}");
    let message = error.to_string();
    let (_, message) = message.split_once("cannot be observed: it has ").unwrap();
    message.trim_end_matches("\n  export again").to_owned()
}

/// Replaces an operand of the first node of a name.
fn set_operand(graph: &mut Graph, name: &str, index: usize, operand: &str) {
    let node = graph.node.iter_mut().find(|node| node.name() == name).unwrap();
    node.input[index] = operand.to_owned();
}

#[test]
fn a_graph_that_does_not_mask_all_layers_alike_is_not_observed() {
    let rename = |graph: &mut Graph, scope: &str| {
        graph.node.iter_mut().filter(|node| node.name().starts_with(scope)).for_each(|node| node.name = None);
    };
    let portable = |change: &dyn Fn(&mut Graph)| refusal(Profile::Portable, change);
    assert_eq!(
        portable(&|graph| set_operand(graph, "layers.1/self_attention/attention/Add", 1, "mask/Where")),
        "not one bias of the scores, but several"
    );
    assert_eq!(
        portable(&|graph| set_operand(graph, "mask/Concat", 1, "mask/And")),
        "not one bias of the queries of a token, but several"
    );
    assert_eq!(
        portable(&|graph| rename(graph, "layers.0/self_attention/attention/Softmax")),
        "no Softmax in layers.0/self_attention/attention"
    );
    assert_eq!(portable(&|graph| rename(graph, "layers.1/mlp/router/")), "no TopK in layers.1/mlp/router");
    let in_place = |change: &dyn Fn(&mut Graph)| refusal(Profile::OnnxRuntime, change);
    assert_eq!(
        in_place(&|graph| {
            set_operand(graph, "layers.1/self_attention/attention/GroupQueryAttention", 5, "mask/Cast_2");
        }),
        "not one way of masking, but several"
    );
    assert_eq!(in_place(&|graph| rename(graph, "padding/Gather")), "no Gather of the results in padding");
    let native = |change: &dyn Fn(&mut Graph)| refusal_of(Precision::Q4, Profile::Native, change);
    let attention = "layers.1/self_attention/attention/Attention";
    assert_eq!(
        native(&|graph| set_operand(graph, attention, 4, "position_ids")),
        "not one way of masking, but several"
    );
    assert_eq!(
        native(&|graph| rename(graph, attention)),
        "no Attention in layers.1/self_attention/attention"
    );
}
