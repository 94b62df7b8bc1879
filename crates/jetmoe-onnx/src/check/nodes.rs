//! The nodes: operators, operands and their order.

use std::collections::HashMap;

use jetmoe_artifact::{GraphRecord, Profile};
use jetmoe_checkpoint::ModelConfig;

use super::initializers::TensorFacts;
use super::integers::Limits;
use super::{Checked, attributes, integers, refuse, shown, weights};
use crate::operators::ExportedOperator;
use crate::{Graph, Node};

/// The most nodes of a graph. 24 layers with 8 experts have up to 6,504.
const MAX_NODES: usize = 1 << 18;

/// A value of the graph.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// An input.
    Input,
    /// An initializer.
    Tensor(&'a TensorFacts),
    /// The result of a node.
    Computed {
        /// Whether it depends on no input.
        is_constant: bool,
        /// Whether other values may be divided by it.
        is_divisor: bool,
    },
}

/// A node whose operator and operands are known.
pub(super) struct Operation<'a> {
    pub(super) node: &'a Node,
    pub(super) operator: &'a ExportedOperator,
    pub(super) operands: Vec<Value<'a>>,
}

/// Checks every node.
pub(super) fn check(
    graph: &Graph,
    tensors: &HashMap<&str, TensorFacts>,
    config: &ModelConfig,
    record: &GraphRecord,
) -> Checked {
    if graph.node.len() > MAX_NODES {
        return refuse("the graph", format_args!("it has {} nodes, at most {MAX_NODES}", graph.node.len()));
    }
    let operators = ExportedOperator::all();
    let operators: HashMap<_, _> =
        operators.iter().map(|operator| ((operator.domain, operator.name), operator)).collect();
    let limits = Limits::of(tensors);
    let mut values: HashMap<&str, Value<'_>> = HashMap::with_capacity(tensors.len() + graph.node.len());
    values.extend(tensors.iter().map(|(name, facts)| (*name, Value::Tensor(facts))));
    // also those with a default
    values.extend(graph.input.iter().map(|input| (input.name(), Value::Input)));
    for node in &graph.node {
        let operation = Operation::new(node, &operators, &values, record.profile)?;
        attributes::check(&operation)?;
        integers::check(&operation, config, limits)?;
        weights::check(&operation, config, record)?;
        let is_divisor = integers::is_divisor(&operation);
        let computed = Value::Computed { is_constant: operation.is_constant(), is_divisor };
        for result in &node.output {
            if result.is_empty() || values.insert(result, computed).is_some() {
                return operation
                    .refuse(format_args!("its result {} needs a name of its own", shown(result)));
            }
        }
    }
    for output in &graph.output {
        if !matches!(values.get(output.name()), Some(Value::Computed { .. })) {
            return refuse(format_args!("output {}", shown(output.name())), "no node computes it");
        }
    }
    Ok(())
}

impl<'a> Operation<'a> {
    fn new(
        node: &'a Node,
        operators: &HashMap<(&'a str, &'a str), &'a ExportedOperator>,
        values: &HashMap<&'a str, Value<'a>>,
        profile: Profile,
    ) -> Checked<Self> {
        let place = || format!("node {}", shown(node.name()));
        let known = operators.get(&(node.domain(), node.op_type()));
        let Some(operator) = known.filter(|operator| operator.is_in(profile)) else {
            let domain = match node.domain() {
                "" => String::new(),
                domain => format!(" of the domain {}", shown(domain)),
            };
            let problem = format!(
                "exported graphs of the profile {profile} do not have its operator {}{domain}",
                shown(node.op_type())
            );
            return refuse(place(), problem);
        };
        let (operands, results) = (node.input.len(), node.output.len());
        if operands < operator.least_operands || operator.most_operands.is_some_and(|most| operands > most) {
            return refuse(place(), format_args!("{} does not take {operands} operands", operator.name));
        }
        if results != operator.results {
            let expected = operator.results;
            return refuse(
                place(),
                format_args!("{} has {results} results, expected {expected}", operator.name),
            );
        }
        let value = |name: &String| match values.get(name.as_str()) {
            Some(value) => Ok(*value),
            None => refuse(
                place(),
                format_args!("its operand {} is no input, no tensor, and not computed before", shown(name)),
            ),
        };
        let operands = node.input.iter().map(value).collect::<Checked<_>>()?;
        Ok(Operation { node, operator, operands })
    }

    /// Refuses the node.
    pub(super) fn refuse<T>(&self, problem: impl std::fmt::Display) -> Checked<T> {
        let (name, operator) = (shown(self.node.name()), self.operator.name);
        refuse(format_args!("node {name}"), format_args!("{operator}: {problem}"))
    }

    /// Whether it depends on no input.
    pub(super) fn is_constant(&self) -> bool {
        self.operands.iter().all(|operand| match operand {
            Value::Input => false,
            Value::Tensor(_) => true,
            Value::Computed { is_constant, .. } => *is_constant,
        })
    }

    /// An operand that must be an initializer.
    pub(super) fn tensor(&self, index: usize) -> Checked<&'a TensorFacts> {
        match self.operands.get(index) {
            Some(Value::Tensor(facts)) => Ok(*facts),
            _ => self.refuse(format_args!("its operand {index} must be a weight or a constant")),
        }
    }

    /// An operand that must be an int64 constant.
    pub(super) fn integers(&self, index: usize) -> Checked<&'a [i64]> {
        match &self.tensor(index)?.integers {
            Some(integers) => Ok(integers),
            None => self.refuse(format_args!("its operand {index} must be an int64 constant")),
        }
    }

    /// An integer attribute. [`attributes::check`] has found it.
    pub(super) fn integer(&self, name: &str) -> i64 {
        let found = self.node.attribute.iter().find(|attribute| attribute.name() == name);
        found.and_then(|attribute| attribute.i).unwrap_or_default()
    }
}
