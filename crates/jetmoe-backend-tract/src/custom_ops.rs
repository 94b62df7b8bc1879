//! The custom operators in tract. Their weights are removed from the graph before tract parses it; the operators read them
//! from the mapped data file.

use std::ops::Range;

use half::f16;
use jetmoe_backend::Prefetch;
use jetmoe_backend::operator::{self, Elements, ElementsMut, OperandValue, Operator};
use jetmoe_checkpoint::MappedFile;
use jetmoe_format::{Attributes, DOMAIN, ElementType, OperatorSchema};
use jetmoe_kernels::ExecContext;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;
use zerocopy::FromBytes;

use crate::data_file::{DataFile, Initializers, place};
use crate::operator::{ByAddress, Kernel, KernelOp, ValueType, boxed, datum_type};
use crate::threads::StepThreads;

/// Attribute of a node whose weights were removed: offset and length of each in the data file.
const EXTERNAL_DATA: &str = "external-data";

/// Registers the custom operators, but for that which updates a cache, with tract's parser.
pub(crate) fn register(register: &mut tract_onnx::model::OnnxOpRegister) {
    for schema in OperatorSchema::all().filter(|schema| !schema.updates_cache()) {
        register.insert(schema.operator.name(), parse);
    }
}

/// Removes the weights of the custom operators from a graph, and adds their locations in the data file to each node.
pub(crate) fn remove_weights(graph: &mut GraphProto) -> TractResult<()> {
    let tensors = Initializers::of(&graph.initializer);
    let mut taken = Vec::new();
    for node in graph.node.iter_mut().filter(|node| node.domain == DOMAIN) {
        let schema = OperatorSchema::named(&node.op_type)?;
        if schema.weights().next().is_none() {
            continue;
        }
        let required = schema.operands.iter().filter(|operand| !operand.is_optional()).count();
        ensure!(node.input.len() >= required, "{} has {} operands", schema.operator, node.input.len());
        let first = schema.operands.iter().take_while(|operand| operand.tensor().is_none()).count();
        let mut external_data = Vec::new();
        for weight in node.input.drain(first..) {
            external_data.extend(external_place(tensors.get(&weight)?).with_context(|| weight.clone())?);
            taken.push(weight);
        }
        node.attribute.push(AttributeProto {
            name: EXTERNAL_DATA.to_owned(),
            ints: external_data,
            r#type: AttributeType::Ints as i32,
            ..AttributeProto::default()
        });
    }
    graph.initializer.retain(|tensor| !taken.contains(&tensor.name));
    if let Some(node) = graph.node.iter().find(|node| node.input.iter().any(|input| taken.contains(input))) {
        bail!("{} reads a packed weight", node.op_type);
    }
    Ok(())
}

/// Offset and length of a weight in the data file.
fn external_place(tensor: &TensorProto) -> TractResult<[i64; 2]> {
    let known = [DataType::Uint8, DataType::Float16].iter().any(|kind| *kind as i32 == tensor.data_type);
    ensure!(known, "has elements that no packed weight has");
    let place = place(tensor)?;
    Ok([i64::try_from(place.start)?, i64::try_from(place.len())?])
}

/// Maps the data file if the graph has custom operators, and says how they compute.
pub(crate) fn map_weights(model: &mut TypedModel, file: &DataFile, batch_invariant: bool) -> TractResult<()> {
    let mut custom: Vec<&mut KernelOp<CustomOp>> =
        model.nodes.iter_mut().filter_map(|node| node.op_as_mut()).collect();
    for KernelOp(node) in &mut custom {
        node.batch_invariant = batch_invariant;
    }
    custom.retain(|KernelOp(node)| !node.external_data.is_empty());
    if custom.is_empty() {
        return Ok(());
    }
    let data = file.mapped()?;
    let prefetch = Prefetch::for_weights(data.len() as u64).map(ByAddress);
    for KernelOp(node) in &mut custom {
        for place in &node.external_data {
            ensure!(place.end <= data.len(), "a weight ends at {} of {} bytes", place.end, data.len());
        }
        node.data = Some(ByAddress(data.clone()));
        node.prefetch = prefetch.clone();
    }
    Ok(())
}

/// A node of a custom operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CustomOp {
    operator: Operator,
    /// The bytes of each weight in the data file.
    external_data: Vec<Range<usize>>,
    /// The mapped data file.
    data: Option<ByAddress<MappedFile>>,
    /// If the weights do not fit in memory.
    prefetch: Option<ByAddress<Prefetch>>,
    /// See [`jetmoe_backend::LoadOptions::batch_invariant`].
    batch_invariant: bool,
}

/// The attributes of a node.
pub(crate) struct NodeAttributes<'a>(pub(crate) &'a NodeProto);

impl Attributes for NodeAttributes<'_> {
    fn integer(&self, name: &str) -> Option<i64> {
        self.0.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.0.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.f)
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
    let operator = Operator::new(&node.op_type, &NodeAttributes(node))?;
    let external_data = node.attribute.iter().find(|attribute| attribute.name == EXTERNAL_DATA);
    let (external_data, _) = external_data.map_or(&[][..], |attribute| &attribute.ints).as_chunks::<2>();
    let place = |[offset, length]: &[i64; 2]| {
        let (offset, length) = (usize::try_from(*offset)?, usize::try_from(*length)?);
        let end = offset.checked_add(length).context("a weight ends beyond every file")?;
        Ok(offset..end)
    };
    let external_data = external_data.iter().map(place).collect::<TractResult<Vec<_>>>()?;
    let node = CustomOp { operator, external_data, data: None, prefetch: None, batch_invariant: false };
    Ok((boxed(node), Vec::new()))
}

/// The value of an operand that is no weight.
pub(crate) fn operand_value<'a>(
    shape: &[usize],
    element: ElementType,
    view: &'a PlainView<'_>,
) -> TractResult<OperandValue<'a>> {
    let elements = match element {
        ElementType::Float32 => Elements::Float32(view.as_slice::<f32>()?),
        ElementType::Int64 => Elements::Int64(view.as_slice::<i64>()?),
        _ => bail!("an operator reads {element} from tract"),
    };
    Ok(OperandValue { shape: shape.to_vec(), elements })
}

impl Kernel for CustomOp {
    fn name(&self) -> StaticName {
        self.operator.schema().operator.name().into()
    }

    fn results(&self) -> usize {
        self.operator.schema().results().len()
    }

    fn result_types(&self, operands: &[ValueType]) -> TractResult<TVec<ValueType>> {
        let shapes: Vec<&[TDim]> = operands.iter().map(|(_, shape)| shape.as_slice()).collect();
        let elements = self.operator.schema().results().iter().copied().map(datum_type);
        let shapes = self.operator.result_shapes(&shapes)?.into_iter();
        Ok(elements.zip(shapes).map(|(element, shape)| (element, shape.into())).collect())
    }

    fn compute(&self, _context: &EvalContext<'_>, operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let views = operands.iter().map(|value| value.try_as_plain_ram()).collect::<TractResult<Vec<_>>>()?;
        let mut inputs = Vec::new();
        let schema = self.operator.schema();
        for ((value, view), operand) in operands.iter().zip(&views).zip(schema.operands) {
            inputs.push(operand_value(value.shape(), operand.element(), view)?);
        }
        // packed weights follow the operands that tract passes
        for (place, operand) in self.external_data.iter().zip(schema.operands.iter().skip(operands.len())) {
            let data = self.data.as_ref().ok_or_else(|| TractError::msg("has no weights yet"))?;
            let bytes = &data.0[place.clone()];
            let elements = match operand.element() {
                ElementType::Float16 => match <[f16]>::ref_from_bytes(bytes) {
                    Ok(numbers) => Elements::Float16(numbers),
                    Err(_) => bail!("the scales at {place:?} of the data file do not begin at a number"),
                },
                _ => Elements::UInt8(bytes),
            };
            inputs.push(OperandValue { shape: vec![place.len()], elements });
        }
        let bound = self.operator.bind(&inputs)?;
        let isa = operator::isa(self.batch_invariant)?;
        let threads = StepThreads::current();
        let exec_context = ExecContext { isa, threads: &threads };
        if let Some(ByAddress(prefetch)) = &self.prefetch {
            bound.prefetch(prefetch, &threads);
        }
        let mut results: TVec<Tensor> = bound
            .results()
            .map(|(element, shape)| Tensor::zero_dt(datum_type(element), shape))
            .collect::<TractResult<_>>()?;
        let mut views = results
            .iter_mut()
            .map(|result| result.try_as_plain_ram_mut())
            .collect::<TractResult<Vec<_>>>()?;
        let mut elements = Vec::new();
        for ((element, _), view) in bound.results().zip(&mut views) {
            elements.push(match element {
                ElementType::Int64 => ElementsMut::Int64(view.as_slice_mut::<i64>()?),
                _ => ElementsMut::Float32(view.as_slice_mut::<f32>()?),
            });
        }
        bound.compute(exec_context, &mut elements)?;
        Ok(results.into_iter().map(IntoTValue::into_tvalue).collect())
    }
}
