//! The custom operators in ONNX Runtime. They read weights from the file that it has mapped, and use the threads of its
//! session.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use jetmoe_backend::operator::{self, Elements, OperandValue};
use jetmoe_backend::{Prefetch, catch_panics};
use jetmoe_format::{Attributes, DOMAIN, ElementType, OperatorSchema};
use jetmoe_kernels::{ExecContext, Isa, Threads};
use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::{DynTensorValueType, PrimitiveTensorElementType, Shape, TensorElementType, ValueRef};

use crate::graph::sizes;

/// The domain with all of its operators. They request weights before they compute if these do not fit in memory.
pub(crate) fn domain(threads: Option<usize>, prefetch: Option<Arc<Prefetch>>) -> ort::Result<OperatorDomain> {
    let isa = operator::isa().map_err(ort::Error::wrap)?;
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
        [OperatorOutput::required(TensorElementType::Float32)]
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
            let operands = values
                .map(|(value, name)| operand(value, name.element()))
                .collect::<ort::Result<Vec<_>>>()?;
            let bound = operator.bind(&operands).map_err(ort::Error::wrap)?;
            let shape: Vec<i64> = bound.shape().iter().map(|size| *size as i64).collect();
            let missing = || ort::Error::new("no node takes the result of an operator");
            let mut output = context.output(0, shape)?.ok_or_else(missing)?;
            let (_, result) = output.try_extract_tensor_mut::<f32>()?;
            let threads = SessionThreads { context, count: threads };
            if let Some(prefetch) = &prefetch {
                bound.prefetch(prefetch, &threads);
            }
            bound.compute(ExecContext { isa, threads: &threads }, result).map_err(ort::Error::wrap)
        }))
    }
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
