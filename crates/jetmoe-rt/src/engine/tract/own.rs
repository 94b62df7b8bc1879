//! Our own operators in tract. Their weights never become tensors of its: before it reads the graph they are taken out of
//! it, and the operators read them where the file is mapped.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use half::f16;
use jetmoe_artifact::names::operators::DOMAIN;
use jetmoe_checkpoint::MappedFile;
use jetmoe_kernels::{ExecContext, Threads};
use rayon::ThreadPool;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;
use zerocopy::FromBytes;

use super::current_pool;
use crate::engine::operators::{
    self, Attributes, Elements, Operand, OperandType, Operator, Specification, shapes,
};

/// Attribute of a node whose weights were taken out: offset and length of each in the data file.
const PLACES: &str = "places";

/// Lets tract read nodes of our own operators.
pub(super) fn register(register: &mut tract_onnx::model::OnnxOpRegister) {
    for specification in operators::ALL {
        register.insert(specification.name, parse);
    }
}

/// Takes the weights of our own operators out of a graph and leaves their places in the data file.
pub(super) fn take_weights(graph: &mut GraphProto) -> TractResult<()> {
    let mut taken = Vec::new();
    for node in graph.node.iter_mut().filter(|node| node.domain == DOMAIN) {
        let Specification { name, required, .. } =
            Specification::named(&node.op_type).map_err(TractError::msg)?;
        let first = required.iter().position(|kind| *kind == OperandType::UInt8).unwrap_or(required.len());
        ensure!(node.input.len() >= required.len(), "{name} has {} operands", node.input.len());
        let mut places = Vec::new();
        for weight in node.input.drain(first..) {
            let tensor = graph.initializer.iter().find(|tensor| tensor.name == weight);
            let tensor =
                tensor.ok_or_else(|| TractError::msg(format!("{weight} is not stored with the graph")))?;
            places.extend(place(tensor).with_context(|| weight.clone())?);
            taken.push(weight);
        }
        node.attribute.push(AttributeProto {
            name: PLACES.to_owned(),
            ints: places,
            r#type: AttributeType::Ints as i32,
            ..AttributeProto::default()
        });
    }
    graph.initializer.retain(|tensor| !taken.contains(&tensor.name));
    if let Some(node) = graph.node.iter().find(|node| node.input.iter().any(|input| taken.contains(input))) {
        bail!("{} reads a weight that is in panels", node.op_type);
    }
    Ok(())
}

/// Offset and length of a tensor in the data file.
fn place(tensor: &TensorProto) -> TractResult<[i64; 2]> {
    let entry = |key: &str| {
        let entry = tensor.external_data.iter().find(|entry| entry.key == key);
        let entry = entry.ok_or_else(|| TractError::msg(format!("has no {key} in a data file")))?;
        entry.value.parse::<i64>().with_context(|| format!("{key} {:?}", entry.value))
    };
    let known = [DataType::Uint8, DataType::Float16].iter().any(|kind| *kind as i32 == tensor.data_type);
    ensure!(known, "has elements that no weight in panels has");
    Ok([entry("offset")?, entry("length")?])
}

/// Maps the data file for the operators that read from it, where there are any.
pub(super) fn bring_weights(model: &mut TypedModel, path: &Path) -> TractResult<()> {
    let mut own: Vec<&mut OwnOperator> = model.nodes.iter_mut().filter_map(|node| node.op_as_mut()).collect();
    if own.is_empty() {
        return Ok(());
    }
    let data = Arc::new(MappedFile::open(path)?);
    for node in &mut own {
        for place in &node.places {
            ensure!(place.end <= data.len(), "a weight ends at {} of {} bytes", place.end, data.len());
        }
        node.data = Some(Data(data.clone()));
    }
    Ok(())
}

/// A node of one of our operators.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OwnOperator {
    name: &'static str,
    operator: Operator,
    /// Types of all operands: those that tract has, and behind them the weights.
    types: Vec<OperandType>,
    /// Where the weights lie.
    places: Vec<Range<usize>>,
    data: Option<Data>,
}

/// The data file; the same only if it is the same mapping.
#[derive(Debug, Clone)]
struct Data(Arc<MappedFile>);

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Data {}

impl Hash for Data {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

struct NodeAttributes<'a>(&'a NodeProto);

impl Attributes for NodeAttributes<'_> {
    fn integer(&self, name: &str) -> Option<i64> {
        self.0.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
    }

    fn text(&self, name: &str) -> Option<String> {
        let attribute = self.0.attribute.iter().find(|attribute| attribute.name == name)?;
        String::from_utf8(attribute.s.clone()).ok()
    }
}

fn parse(
    _context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let operator = Operator::new(&node.op_type, &NodeAttributes(node)).map_err(TractError::msg)?;
    let specification = Specification::named(&node.op_type).map_err(TractError::msg)?;
    let places = node.attribute.iter().find(|attribute| attribute.name == PLACES);
    let (places, _) = places.map_or(&[][..], |attribute| &attribute.ints).as_chunks::<2>();
    let place = |[offset, length]: &[i64; 2]| {
        let (offset, length) = (usize::try_from(*offset)?, usize::try_from(*length)?);
        Ok(offset..offset + length)
    };
    let places = places.iter().map(place).collect::<TractResult<Vec<_>>>()?;
    let mut types = specification.types();
    types.truncate(node.input.len() + places.len());
    let own = OwnOperator { name: specification.name, operator, types, places, data: None };
    Ok((expand(own), Vec::new()))
}

impl OwnOperator {
    /// Shape of the result for operands of these shapes.
    fn result_shape(&self, shapes: &[TVec<TDim>]) -> TractResult<TVec<TDim>> {
        let shapes: Vec<&[TDim]> = shapes.iter().map(|shape| shape.as_slice()).collect();
        Ok(self.operator.result_shape(&shapes).map_err(TractError::msg)?.into())
    }
}

impl Expansion for OwnOperator {
    fn name(&self) -> StaticName {
        self.name.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        operands: &'p [TensorProxy],
        products: &'p [TensorProxy],
    ) -> InferenceResult {
        solver.equals(&products[0].datum_type, f32::datum_type())?;
        let shapes: Vec<_> = operands.iter().map(|operand| (&operand.shape).bex()).collect();
        solver.given_all(shapes, move |solver, shapes| {
            solver.equals(&products[0].shape, self.result_shape(&shapes)?)
        })
    }

    fn wire(&self, name: &str, model: &mut TypedModel, operands: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(name, self.clone(), operands)
    }
}

impl Op for OwnOperator {
    fn name(&self) -> StaticName {
        self.name.into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("{:?}", self.operator)])
    }

    op_as_typed_op!();
}

impl EvalOp for OwnOperator {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let data = self.data.as_ref().ok_or_else(|| TractError::msg("has no weights yet"))?;
        let views = operands.iter().map(|value| value.try_as_plain_ram()).collect::<TractResult<Vec<_>>>()?;
        let mut inputs = Vec::new();
        for ((value, view), kind) in operands.iter().zip(&views).zip(&self.types) {
            let elements = match kind {
                OperandType::Float32 => Elements::Float32(view.as_slice::<f32>()?),
                OperandType::Int64 => Elements::Int64(view.as_slice::<i64>()?),
                OperandType::UInt8 | OperandType::Float16 => bail!("{} reads a weight from tract", self.name),
            };
            inputs.push(Operand { shape: value.shape().to_vec(), elements });
        }
        for (place, kind) in self.places.iter().zip(&self.types[operands.len()..]) {
            let bytes = &data.0[place.clone()];
            let elements = match kind {
                OperandType::Float16 => match <[f16]>::ref_from_bytes(bytes) {
                    Ok(numbers) => Elements::Float16(numbers),
                    Err(_) => bail!("the scales at {place:?} of the data file do not begin at a number"),
                },
                _ => Elements::UInt8(bytes),
            };
            inputs.push(Operand { shape: vec![place.len()], elements });
        }
        let shape = self.operator.result_shape(&shapes(&inputs)).map_err(TractError::msg)?;
        let mut result = Tensor::zero::<f32>(&shape)?;
        let mut elements = result.try_as_plain_ram_mut()?;
        let isa = operators::isa().map_err(TractError::msg)?;
        let threads = Pool(current_pool());
        let context = ExecContext { isa, threads: &threads };
        self.operator.compute(context, &inputs, elements.as_slice_mut::<f32>()?).map_err(TractError::msg)?;
        Ok(tvec![result.into_tvalue()])
    }
}

impl TypedOp for OwnOperator {
    as_op!();

    fn output_facts(&self, operands: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shapes: Vec<TVec<TDim>> = operands.iter().map(|fact| fact.shape.to_tvec()).collect();
        Ok(tvec![f32::fact(self.result_shape(&shapes)?)])
    }
}

/// The threads of a pool; the calling one where there is none.
struct Pool(Option<Arc<ThreadPool>>);

impl Threads for Pool {
    fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        match &self.0 {
            Some(pool) => drop(pool.broadcast(|context| work(context.index()))),
            None => work(0),
        }
    }
}
