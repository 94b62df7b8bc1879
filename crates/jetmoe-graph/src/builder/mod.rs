//! Builds a graph operator by operator. Every value has an element type and a symbolic shape, and an operator that is
//! given operands it cannot take is refused where it is made, with the node's place and all shapes in the message.

mod attention;
mod constants;
mod custom_ops;
mod elementwise;
mod experts;
mod products;
mod reductions;
mod routing;
mod shapes;
mod sizes;

use std::collections::HashMap;

use jetmoe_artifact::{InputSpec, OutputSpec, Profile, WeightPlan};
use jetmoe_format::{DOMAIN, OperatorSchema, TensorRole};
use jetmoe_onnx::MICROSOFT;

pub(crate) use self::attention::GroupedQueries;
pub(crate) use self::custom_ops::{AttentionOperands, PackedWeight};
use crate::graph::{Attribute, Constant, Graph, Node, Operator, StoredWeight, ValueFacts, ValueId};
use crate::{Dimension, ElementType, Error, GraphOptions, Result, Shape, Weight};

/// The operators of ONNX Runtime that graphs may use besides the standard ones.
const MICROSOFT_OPERATORS: &[&str] =
    &["FusedMatMul", "GatherBlockQuantized", "GroupQueryAttention", "MatMulNBits", "RotaryEmbedding"];

/// A value of the graph under construction.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) id: ValueId,
    pub(crate) element: ElementType,
    pub(crate) shape: Shape,
}

impl Value {
    pub(crate) fn dimension(&self, axis: usize) -> &Dimension {
        &self.shape.0[axis]
    }

    fn describe(&self) -> String {
        format!("{}{}", self.element, self.shape)
    }
}

/// The values of a weight's tensors.
#[derive(Debug, Clone)]
pub(crate) struct WeightValues(Vec<(TensorRole, Value)>);

impl WeightValues {
    /// The value of one tensor, if the weight has it.
    pub(crate) fn get(&self, role: TensorRole) -> Option<&Value> {
        self.0.iter().find(|(found, _)| *found == role).map(|(_, value)| value)
    }

    /// Elements, or codes.
    pub(crate) fn elements(&self) -> &Value {
        &self.0[0].1
    }

    /// All of them: elements or codes, scales, zero points.
    pub(crate) fn all(&self) -> Vec<&Value> {
        self.0.iter().map(|(_, value)| value).collect()
    }
}

/// A graph under construction.
pub(crate) struct Builder {
    graph: Graph,
    /// How the products' weights are stored.
    plan: WeightPlan,
    /// Names of the enclosing scopes, outermost first.
    scopes: Vec<String>,
    /// How often a node name was used, to keep names unique.
    used_names: HashMap<String, usize>,
    /// Constants that exist already, by their name.
    constants: HashMap<String, Value>,
    /// One-element vectors of sizes, by size.
    sizes: HashMap<Dimension, Value>,
    /// Concatenated size vectors, by their parts.
    size_vectors: HashMap<Vec<sizes::Part>, Value>,
}

impl Builder {
    pub(crate) fn new(options: &GraphOptions) -> Self {
        let graph = Graph {
            task: options.task,
            precision: options.precision,
            profile: options.profile,
            opset: options.opset,
            kv_cache: options.attention_cache(),
            values: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            nodes: Vec::new(),
            constants: Vec::new(),
            weights: Vec::new(),
        };
        Builder {
            graph,
            plan: options.weights.clone(),
            scopes: Vec::new(),
            used_names: HashMap::new(),
            constants: HashMap::new(),
            sizes: HashMap::new(),
            size_vectors: HashMap::new(),
        }
    }

    /// Names everything that `build` makes under `name/`.
    pub(crate) fn scope<T>(
        &mut self,
        name: impl Into<String>,
        build: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.scopes.push(name.into());
        let result = build(self);
        self.scopes.pop();
        result
    }

    /// Declares an input of the contract.
    pub(crate) fn input(&mut self, spec: &InputSpec) -> Value {
        let shape = sizes::shape(&spec.shape);
        let value = self.value(spec.name.to_string(), spec.element, shape);
        self.graph.inputs.push(value.id);
        value
    }

    /// Declares an input that defaults to zeros, and to none along an axis of any size: in ONNX an initializer with an input's
    /// name is the input's default.
    pub(crate) fn optional_input(&mut self, spec: &InputSpec) -> Value {
        let shape = sizes::shape(&spec.shape);
        let elements: i64 = shape.0.iter().map(|size| size.fixed().unwrap_or(0)).product();
        let zeros = crate::graph::Elements::Int64(vec![0; elements as usize]);
        let value = self.constant_value(spec.name.to_string(), zeros, shape);
        self.graph.inputs.push(value.id);
        value
    }

    /// Declares a value as the output `spec` of the signature.
    ///
    /// # Errors
    /// [`Error::Output`] if type or shape differ.
    pub(crate) fn output(&mut self, spec: &OutputSpec, value: &Value) -> Result<()> {
        let expected = sizes::shape(&spec.shape);
        let element = spec.element;
        if value.element != element || value.shape != expected {
            return Err(Error::Output {
                output: spec.name.to_string(),
                expected: format!("{element}{expected}"),
                found: value.describe(),
            });
        }
        self.graph.values[value.id].name = spec.name.to_string();
        self.graph.outputs.push(value.id);
        Ok(())
    }

    /// The values of a weight of the checkpoint; the same reference gives the same values.
    pub(crate) fn weight(&mut self, weight: &Weight) -> WeightValues {
        let specs = weight.tensors();
        let index = self.graph.weights.iter().position(|stored| stored.weight == *weight);
        let index = index.unwrap_or_else(|| {
            let tensors = specs.iter().map(|spec| {
                let shape = Shape(spec.shape.iter().copied().map(Dimension::from).collect());
                self.value(spec.role.tensor_name(&weight.name()), spec.element, shape).id
            });
            let tensors = tensors.collect();
            self.graph.weights.push(StoredWeight { weight: weight.clone(), tensors, views: Vec::new() });
            self.graph.weights.len() - 1
        });
        let ids = self.graph.weights[index].tensors.iter();
        WeightValues(specs.iter().zip(ids).map(|(spec, id)| (spec.role, self.existing(*id))).collect())
    }

    /// The bytes of one tensor of a weight that is already in the graph, as a tensor of another element type: with the
    /// requested number of rows, or a vector.
    ///
    /// # Errors
    /// [`Error::NoView`] for a weight that the graph does not have, or bytes that hold no whole number of elements.
    pub(crate) fn view(
        &mut self,
        weight: &Weight,
        role: TensorRole,
        element: ElementType,
        rows: Option<usize>,
    ) -> Result<Value> {
        let missing = || Error::NoView { weight: weight.name(), element };
        let index = self.graph.weights.iter().position(|stored| stored.weight == *weight);
        let index = index.ok_or_else(missing)?;
        let mut specs = weight.tensors().into_iter().enumerate();
        let (tensor, spec) = specs.find(|(_, spec)| spec.role == role).ok_or_else(missing)?;
        let (bytes, size) = (spec.bytes() as usize, element.bytes(1) as usize);
        let row = bytes / size / rows.unwrap_or(1);
        if row * size * rows.unwrap_or(1) != bytes {
            return Err(missing());
        }
        let shape = Shape(rows.into_iter().chain([row]).map(Dimension::from).collect());
        let value = self.value(format!("{}.bytes", role.tensor_name(&weight.name())), element, shape);
        self.graph.weights[index].views.push((value.id, tensor));
        Ok(value)
    }

    fn existing(&self, id: ValueId) -> Value {
        let facts = &self.graph.values[id];
        Value { id, element: facts.element, shape: facts.shape.clone() }
    }

    /// The operators that may be used.
    pub(crate) fn profile(&self) -> Profile {
        self.graph.profile
    }

    /// The finished graph.
    pub(crate) fn finish(self) -> Graph {
        self.graph
    }

    /// Where a failure happened, for messages.
    fn place(&self) -> String {
        if self.scopes.is_empty() { "graph".to_owned() } else { self.scopes.join("/") }
    }

    /// The refusal of an operator's operands.
    fn refuse<T>(
        &self,
        operator: &'static str,
        operands: &[&Value],
        message: impl Into<String>,
    ) -> Result<T> {
        Err(Error::Operands {
            node: self.place(),
            operator,
            operands: operands.iter().map(|value| value.describe()).collect(),
            message: message.into(),
        })
    }

    /// Refuses operands that are not all of one type with fractions.
    fn require_float(&self, operator: &'static str, operands: &[&Value]) -> Result<()> {
        let same = operands.windows(2).all(|pair| pair[0].element == pair[1].element);
        if same && operands.iter().all(|value| value.element.is_float()) {
            Ok(())
        } else {
            self.refuse(operator, operands, "every operand must be float32, or every one float16")
        }
    }

    /// Refuses operands of another element type.
    fn require_element(
        &self,
        operator: &'static str,
        operands: &[&Value],
        element: ElementType,
    ) -> Result<()> {
        if operands.iter().all(|value| value.element == element) {
            Ok(())
        } else {
            self.refuse(operator, operands, format!("every operand must be {element}"))
        }
    }

    fn value(&mut self, name: String, element: ElementType, shape: Shape) -> Value {
        let id = self.graph.values.len();
        self.graph.values.push(ValueFacts { name, element, shape: shape.clone() });
        Value { id, element, shape }
    }

    fn constant_value(&mut self, name: String, elements: crate::graph::Elements, shape: Shape) -> Value {
        if let Some(value) = self.constants.get(&name) {
            return value.clone();
        }
        let value = self.value(name.clone(), elements.element(), shape);
        self.graph.constants.push(Constant { value: value.id, elements });
        self.constants.insert(name, value.clone());
        value
    }

    /// Adds a node with one result.
    fn node(
        &mut self,
        operator: &'static str,
        inputs: &[&Value],
        attributes: Vec<(&'static str, Attribute)>,
        element: ElementType,
        shape: Shape,
    ) -> Value {
        let name = self.unique_name(operator);
        let result = self.value(name.clone(), element, shape);
        self.push_node(name, operator, inputs, vec![result.id], attributes);
        result
    }

    /// Adds a node with several results.
    fn node_with_results(
        &mut self,
        operator: &'static str,
        inputs: &[&Value],
        attributes: Vec<(&'static str, Attribute)>,
        results: Vec<(ElementType, Shape)>,
    ) -> Vec<Value> {
        let name = self.unique_name(operator);
        let results: Vec<Value> = results
            .into_iter()
            .enumerate()
            .map(|(index, (element, shape))| self.value(format!("{name}:{index}"), element, shape))
            .collect();
        self.push_node(name, operator, inputs, results.iter().map(|value| value.id).collect(), attributes);
        results
    }

    fn push_node(
        &mut self,
        name: String,
        operator: &'static str,
        inputs: &[&Value],
        outputs: Vec<ValueId>,
        attributes: Vec<(&'static str, Attribute)>,
    ) {
        let inputs = inputs.iter().map(|value| value.id).collect();
        let domain = match operator {
            _ if MICROSOFT_OPERATORS.contains(&operator) => MICROSOFT,
            _ if OperatorSchema::named(operator).is_ok() => DOMAIN,
            _ => "",
        };
        let operator = Operator { domain, name: operator };
        self.graph.nodes.push(Node { name, operator, inputs, outputs, attributes });
    }

    /// `scope/Operator`, with a number from the second on.
    fn unique_name(&mut self, operator: &str) -> String {
        let mut name = self.scopes.join("/");
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(operator);
        let uses = self.used_names.entry(name.clone()).or_insert(0);
        *uses += 1;
        if *uses > 1 {
            name.push_str(&format!("_{uses}"));
        }
        name
    }
}
