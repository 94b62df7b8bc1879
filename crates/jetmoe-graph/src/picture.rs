//! A graph as a picture: one box per part of the model, arrows where values flow.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use crate::Graph;
use crate::graph::ValueId;

/// Describes the picture in the DOT language. Boxes are the scopes of the graph, such as `layers.0/mlp/experts.1`, with
/// the number of their nodes; sizes, weights and constants are left out.
pub fn dot(graph: &Graph) -> String {
    let mut producers: HashMap<ValueId, String> = HashMap::new();
    let mut boxes: Vec<(String, usize)> = Vec::new();
    let mut edges = BTreeSet::new();
    for id in &graph.inputs {
        let name = graph.values[*id].name.clone();
        boxes.push((name.clone(), 0));
        producers.insert(*id, name);
    }
    for node in &graph.nodes {
        let (scope, _) = node.name.rsplit_once('/').unwrap_or(("graph", &node.name));
        if scope == "sizes" {
            continue;
        }
        match boxes.iter_mut().find(|(name, _)| name == scope) {
            Some((_, count)) => *count += 1,
            None => boxes.push((scope.to_owned(), 1)),
        }
        edges.extend(
            node.inputs
                .iter()
                .filter_map(|id| producers.get(id))
                .filter(|producer| *producer != scope)
                .map(|producer| (producer.clone(), scope.to_owned())),
        );
        producers.extend(node.outputs.iter().map(|id| (*id, scope.to_owned())));
    }
    for id in &graph.outputs {
        let name = graph.values[*id].name.clone();
        if let Some(producer) = producers.get(id) {
            edges.insert((producer.clone(), name.clone()));
        }
        boxes.push((name, 0));
    }

    let mut text = String::from("digraph {\n");
    for (name, count) in &boxes {
        let label = name.replace('/', "\\n");
        // writing to a string does not fail
        let _ = match count {
            0 => writeln!(text, "  \"{name}\" [label=\"{label}\" shape=\"ellipse\"];"),
            1 => writeln!(text, "  \"{name}\" [label=\"{label}\\n1 node\" shape=\"box\"];"),
            _ => writeln!(text, "  \"{name}\" [label=\"{label}\\n{count} nodes\" shape=\"box\"];"),
        };
    }
    for (from, to) in &edges {
        let _ = writeln!(text, "  \"{from}\" -> \"{to}\";");
    }
    text.push_str("}\n");
    text
}
