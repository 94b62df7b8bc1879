//! The custom operators in ONNX Runtime. They read weights from the file that it has mapped, and use the threads of its
//! session.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use jetmoe_backend::operator::{self, CacheTensor, Elements, ElementsMut, OperandValue};
use jetmoe_backend::{LoadOptions, Prefetch, catch_panics};
use jetmoe_format::{Attributes, DOMAIN, ElementType, Operand, OperatorSchema};
use jetmoe_kernels::{ExecContext, Isa, Threads};
use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::{
    DynTensorValueType, PrimitiveTensorElementType, Shape, TensorElementType, ValueRef, ValueRefMut,
};

use crate::graph::sizes;

/// The domain with all of its operators. They request weights before they compute if these do not fit in memory.
pub(crate) fn domain(options: &LoadOptions, prefetch: Option<Arc<Prefetch>>) -> ort::Result<OperatorDomain> {
    let isa = operator::isa(options.batch_invariant).map_err(ort::Error::wrap)?;
    let threads = options.thread_limit();
    let threads = threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let mut domain = OperatorDomain::new(DOMAIN)?;
    for schema in OperatorSchema::all() {
        domain = domain.add(Registered { schema, isa, threads, prefetch: prefetch.clone() })?;
    }
    Ok(domain)
}

/// One operator as it is registered.
struct Registered {
    schema: &'static OperatorSchema,
    isa: Isa,
    threads: usize,
    prefetch: Option<Arc<Prefetch>>,
}

impl Operator for Registered {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        self.schema.operator.name()
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        self.schema.operands.iter().map(|operand| match operand.is_optional() {
            true => OperatorInput::optional(element(operand.element())),
            false => OperatorInput::required(element(operand.element())),
        })
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        self.schema.results().iter().map(|result| OperatorOutput::required(element(*result)))
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let operator =
            operator::Operator::new(self.name(), &NodeAttributes(node)).map_err(ort::Error::wrap)?;
        let (schema, isa, threads) = (self.schema, self.isa, self.threads);
        let prefetch = self.prefetch.clone();
        Ok(kernel(move |context| {
            let count = context.num_inputs()?.min(schema.operands.len());
            let values: Vec<Option<ValueRef<'_>>> =
                (0..count).map(|index| context.input(index)).collect::<ort::Result<_>>()?;
            let values = values.iter().map_while(Option::as_ref).zip(schema.operands);
            // the cache has no view beside the results, which may be its memory
            let is_read = |(_, name): &(&ValueRef<'_>, &Operand)| !name.is_updated();
            let operands = values
                .clone()
                .filter(is_read)
                .map(|(value, name)| operand(value, name.element()))
                .collect::<ort::Result<Vec<_>>>()?;
            let threads = SessionThreads { context, count: threads };
            let exec_context = ExecContext { isa, threads: &threads };
            if operator.updates_cache() {
                let cache: Vec<_> = values.filter(|value| !is_read(value)).map(|(value, _)| value).collect();
                let step = operator.bind_attention(&operands).map_err(ort::Error::wrap)?;
                let mut output = output(context, 0, step.shape())?;
                let (_, result) = output.try_extract_tensor_mut::<f32>()?;
                let [past_key, past_value] = *cache else {
                    return Err(ort::Error::new("attention has no cache"));
                };
                let mut present_key = present(context, 1, past_key)?;
                let mut present_value = present(context, 2, past_value)?;
                let cache = [cache_tensor(&mut present_key)?, cache_tensor(&mut present_value)?];
                return step.compute(exec_context, cache, result).map_err(ort::Error::wrap);
            }
            let bound = operator.bind(&operands).map_err(ort::Error::wrap)?;
            if let Some(prefetch) = &prefetch {
                bound.prefetch(prefetch, &threads);
            }
            let mut outputs = Vec::new();
            for (index, (element, shape)) in bound.results().enumerate() {
                outputs.push((element, output(context, index, shape)?));
            }
            let mut results = Vec::new();
            for (element, output) in &mut outputs {
                results.push(elements_mut(output, *element)?);
            }
            bound.compute(exec_context, &mut results).map_err(ort::Error::wrap)
        }))
    }
}

/// A result of an operator, by its index.
fn output<'a>(context: &'a ComputeContext, index: usize, shape: &[usize]) -> ort::Result<ValueRefMut<'a>> {
    let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
    let missing = || ort::Error::new("no node takes the result of an operator");
    context.output(index, shape)?.ok_or_else(missing)
}

/// The result that continues a part of the cache. It is the memory of `past` where the session has bound both to one buffer, and a
/// copy where ONNX Runtime has allocated it.
fn present<'a>(
    context: &'a ComputeContext,
    index: usize,
    past: &ValueRef<'_>,
) -> ort::Result<ValueRefMut<'a>> {
    let past = past.view().downcast::<DynTensorValueType>()?;
    let mut present = output(context, index, &sizes(past.shape()))?;
    let is_in_place = {
        let present = present.view().downcast::<DynTensorValueType>()?;
        std::ptr::eq(present.data_ptr().cast::<u8>(), past.data_ptr().cast::<u8>())
    };
    if !is_in_place {
        let (_, copy) = present.try_extract_tensor_mut::<u8>()?;
        copy.copy_from_slice(past.try_extract_tensor::<u8>()?.1);
    }
    Ok(present)
}

fn elements_mut<'a>(result: &'a mut ValueRefMut<'_>, kind: ElementType) -> ort::Result<ElementsMut<'a>> {
    Ok(match kind {
        ElementType::Int64 => ElementsMut::Int64(result.try_extract_tensor_mut::<i64>()?.1),
        _ => ElementsMut::Float32(result.try_extract_tensor_mut::<f32>()?.1),
    })
}

fn cache_tensor<'a>(present: &'a mut ValueRefMut<'_>) -> ort::Result<CacheTensor<'a>> {
    let (shape, bytes) = present.try_extract_tensor_mut::<u8>()?;
    Ok(CacheTensor { shape: sizes(shape), bytes })
}

/// A kernel whose panics are errors: ONNX Runtime calls it through C, where a panic would abort the process.
fn kernel<'a>(compute: impl Fn(&ComputeContext) -> ort::Result<()> + Send + 'a) -> BoxedKernel<'a> {
    let error = |text| ort::Error::new(format!("a kernel panicked: {text}"));
    Box::new(move |context: &ComputeContext| catch_panics(|| compute(context), error))
}

fn element(kind: ElementType) -> TensorElementType {
    match kind {
        ElementType::Int64 => TensorElementType::Int64,
        ElementType::UInt8 => TensorElementType::Uint8,
        ElementType::Float16 => TensorElementType::Float16,
        _ => TensorElementType::Float32,
    }
}

fn operand<'a>(value: &'a ValueRef<'_>, kind: ElementType) -> ort::Result<OperandValue<'a>> {
    let (shape, elements) = match kind {
        ElementType::Int64 => {
            let (shape, elements) = slice::<i64>(value)?;
            (shape, Elements::Int64(elements))
        }
        ElementType::UInt8 => {
            let (shape, elements) = slice::<u8>(value)?;
            (shape, Elements::UInt8(elements))
        }
        ElementType::Float16 => {
            let (shape, elements) = slice::<f16>(value)?;
            (shape, Elements::Float16(elements))
        }
        _ => {
            let (shape, elements) = slice::<f32>(value)?;
            (shape, Elements::Float32(elements))
        }
    };
    Ok(OperandValue { shape: sizes(shape), elements })
}

/// Shape and elements of a tensor. Refuses one that begins inside of an element, as a weight can that a graph places at an odd
/// offset of its data file.
fn slice<'a, T: PrimitiveTensorElementType>(value: &'a ValueRef<'_>) -> ort::Result<(&'a Shape, &'a [T])> {
    let tensor = value.view().downcast::<DynTensorValueType>()?;
    if !tensor.data_ptr().cast::<T>().is_aligned() {
        return Err(ort::Error::new("a tensor does not begin at an element in memory"));
    }
    value.try_extract_tensor::<T>()
}

struct NodeAttributes<'a, 'attr>(&'a KernelContext<'attr>);

impl Attributes for NodeAttributes<'_, '_> {
    fn integer(&self, name: &str) -> Option<i64> {
        self.0.get(name)
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.0.get(name)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)
    }
}

/// The threads of the session that computes.
struct SessionThreads<'a> {
    context: &'a ComputeContext,
    count: usize,
}

impl Threads for SessionThreads<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        // ONNX Runtime calls this through C, as it does a kernel
        let panicked = Mutex::new(None);
        let guarded = |index| {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(index))) {
                *panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        };
        if let Err(error) = self.context.par_for(self.count, self.count, guarded) {
            // the work is taken from one queue, so one thread can do all of it
            tracing::warn!("ONNX Runtime does not share work among its threads: {error}");
            work(0);
        }
        let panicked = panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests;
