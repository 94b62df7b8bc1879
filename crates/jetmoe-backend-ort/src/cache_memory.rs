//! Where the key/value cache is: in memory of the host, or on a device.
//!
//! On a device, small graphs copy between its buffers, so that no part of the cache passes through the host.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use half::f16;
use jetmoe_artifact::{CacheFormat, ElementType};
use jetmoe_backend::kv_cache::{CachePlace, copy_tokens};
use jetmoe_backend::operator::decode_cache;
use jetmoe_backend::{Device, Result};
use ndarray::{ArrayD, ArrayViewD, Axis};
use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::operator::Attribute;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{
    DynTensor, Outlet, PrimitiveTensorElementType, Shape, SymbolicDimensions, Tensor, TensorElementType,
    ValueType,
};

use crate::graph::{run_error, sizes, to_array};

/// The memory of a graph's caches.
#[derive(Debug)]
pub(crate) struct CacheMemory {
    place: Place,
    element: CacheElement,
    /// Bytes that were copied in memory of the host.
    bytes_on_host: AtomicU64,
}

/// What caches hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CacheElement {
    Float32,
    Float16,
    /// Rows of bytes.
    Rows(CacheFormat),
}

impl CacheElement {
    /// Numbers of the type of a graph's activations.
    pub(crate) fn of_floats(element: ElementType) -> Self {
        match element {
            ElementType::Float16 => CacheElement::Float16,
            _ => CacheElement::Float32,
        }
    }

    fn tensor_type(self) -> TensorElementType {
        match self {
            CacheElement::Float32 => TensorElementType::Float32,
            CacheElement::Float16 => TensorElementType::Float16,
            CacheElement::Rows(_) => TensorElementType::Uint8,
        }
    }

    fn bytes(self) -> usize {
        match self {
            CacheElement::Float32 => 4,
            CacheElement::Float16 => 2,
            CacheElement::Rows(_) => 1,
        }
    }
}

enum Place {
    Host,
    Device {
        device: AllocationDevice<'static>,
        number: i32,
        /// [`first_tokens_graph`]
        first_tokens: Mutex<Session>,
        /// [`copy_tokens_graph`]
        copy_tokens: Mutex<Session>,
    },
}

impl CacheMemory {
    /// The memory for caches on a device. `builder` makes the sessions that copy on it, where they are needed: also on the CPU if
    /// `by_graphs`.
    pub(crate) fn new(
        device: &Device,
        element: CacheElement,
        by_graphs: bool,
        builder: impl Fn() -> Result<SessionBuilder>,
    ) -> Result<Self> {
        let number = |id: u32| i32::try_from(id).unwrap_or(i32::MAX);
        let on_device = match device {
            Device::Cuda(options) => Some((AllocationDevice::CUDA, number(options.device_id))),
            Device::TensorRt(options) => Some((AllocationDevice::CUDA, number(options.device_id))),
            Device::Cpu | Device::Auto if by_graphs => Some((AllocationDevice::CPU, 0)),
            Device::Cpu | Device::Auto | Device::OpenVino(_) => None,
        };
        let place = match on_device {
            None => Place::Host,
            Some((device, number)) => {
                let session = |graph: ort::Result<Graph>| -> Result<Mutex<Session>> {
                    let session = graph.and_then(|graph| {
                        let mut model = Model::new([Opset::new(ONNX_DOMAIN, OPSET)?])?;
                        model.set_graph(graph)?;
                        Ok(model)
                    });
                    let builder = builder()?;
                    Ok(Mutex::new(session.and_then(|model| model.into_session(&builder)).map_err(run_error)?))
                };
                Place::Device {
                    device,
                    number,
                    first_tokens: session(first_tokens_graph(element.tensor_type()))?,
                    copy_tokens: session(copy_tokens_graph(element.tensor_type()))?,
                }
            }
        };
        Ok(CacheMemory { place, element, bytes_on_host: AtomicU64::new(0) })
    }

    /// Bytes of caches that were copied in memory of the host so far.
    pub(crate) fn bytes_on_host(&self) -> u64 {
        self.bytes_on_host.load(Ordering::Relaxed)
    }

    /// The memory, for a session that binds values to it.
    pub(crate) fn info(&self) -> ort::Result<MemoryInfo<'static>> {
        let (device, number) = match &self.place {
            Place::Host => (AllocationDevice::CPU, 0),
            Place::Device { device, number, .. } => (device.clone(), *number),
        };
        MemoryInfo::new(device, number, AllocatorType::Device, MemoryType::Default)
    }

    /// A buffer whose content does not matter.
    pub(crate) fn allocate(&self, shape: &[usize]) -> ort::Result<DynTensor> {
        let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        match &self.place {
            Place::Host => DynTensor::new(&Allocator::default(), self.element.tensor_type(), shape),
            Place::Device { copy_tokens, .. } => {
                let session = copy_tokens.lock().unwrap_or_else(PoisonError::into_inner);
                DynTensor::new(&Allocator::new(&session, self.info()?)?, self.element.tensor_type(), shape)
            }
        }
    }

    /// A copy of a part of the cache for the host.
    pub(crate) fn read(&self, tensor: &DynTensor) -> ort::Result<ArrayD<f32>> {
        self.count(tensor);
        if tensor.memory_info().is_cpu_accessible() {
            self.to_array(tensor)
        } else {
            self.to_array(&tensor.to(AllocationDevice::CPU, 0)?)
        }
    }

    fn to_array(&self, tensor: &DynTensor) -> ort::Result<ArrayD<f32>> {
        match self.element {
            CacheElement::Float32 | CacheElement::Float16 => to_array(tensor),
            CacheElement::Rows(format) => {
                let (shape, bytes) = tensor.try_extract_tensor::<u8>()?;
                decode_cache(format, &sizes(shape), bytes).map_err(ort::Error::wrap)
            }
        }
    }

    /// A copy of the first tokens of a part of the cache, `[batch, kv_heads, tokens, kv_channels]`.
    pub(crate) fn first_tokens(&self, tensor: &DynTensor, tokens: usize) -> ort::Result<DynTensor> {
        match &self.place {
            Place::Host => {
                let kept = match self.element {
                    CacheElement::Float32 => first_tokens::<f32>(tensor, tokens)?,
                    CacheElement::Float16 => first_tokens::<f16>(tensor, tokens)?,
                    CacheElement::Rows(_) => first_tokens::<u8>(tensor, tokens)?,
                };
                self.count(&kept);
                Ok(kept)
            }
            Place::Device { first_tokens, .. } => {
                self.run(first_tokens, &[("x", tensor)], &[("tokens", tokens)])
            }
        }
    }

    /// Copies `tokens` tokens of a row of one buffer to a row of another, whose batch size and capacity may differ.
    pub(crate) fn copy_tokens(
        &self,
        (to, to_place): (&mut DynTensor, CachePlace),
        (from, from_place): (&DynTensor, CachePlace),
        tokens: usize,
    ) -> ort::Result<()> {
        match &self.place {
            Place::Host => {
                self.bytes_on_host.fetch_add(self.size_of_tokens(from, tokens), Ordering::Relaxed);
                match self.element {
                    CacheElement::Float32 => copy::<f32>((to, to_place), (from, from_place), tokens),
                    CacheElement::Float16 => copy::<f16>((to, to_place), (from, from_place), tokens),
                    CacheElement::Rows(_) => copy::<u8>((to, to_place), (from, from_place), tokens),
                }
            }
            Place::Device { copy_tokens, .. } => {
                let numbers = [
                    ("to_row", to_place.row),
                    ("to_next_row", to_place.row + 1),
                    ("to_token", to_place.token),
                    ("to_next_token", to_place.token + tokens),
                    ("from_row", from_place.row),
                    ("from_next_row", from_place.row + 1),
                    ("from_token", from_place.token),
                    ("from_next_token", from_place.token + tokens),
                ];
                *to = self.run(copy_tokens, &[("to", &*to), ("from", from)], &numbers)?;
                Ok(())
            }
        }
    }

    /// Runs one of the small graphs. Its result stays on the device.
    fn run(
        &self,
        session: &Mutex<Session>,
        tensors: &[(&str, &DynTensor)],
        numbers: &[(&str, usize)],
    ) -> ort::Result<DynTensor> {
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut binding = session.create_binding()?;
        for (name, tensor) in tensors {
            binding.bind_input(*name, tensor)?;
        }
        for (name, number) in numbers {
            binding.bind_input(*name, &Tensor::from_array(([1_usize], vec![*number as i64]))?)?;
        }
        binding.bind_output_to_device(RESULT, &self.info()?)?;
        match session.run_binding(&binding)?.remove(RESULT) {
            Some(result) => result.downcast(),
            None => Err(ort::Error::new("a copy of the cache has no result")),
        }
    }

    fn count(&self, tensor: &DynTensor) {
        let tokens = tensor.shape().get(2).copied().unwrap_or(0);
        let rows = tensor.shape().first().copied().unwrap_or(0);
        let bytes = self.size_of_tokens(tensor, usize::try_from(tokens).unwrap_or(0));
        self.bytes_on_host
            .fetch_add(bytes.saturating_mul(u64::try_from(rows).unwrap_or(0)), Ordering::Relaxed);
    }

    /// The size of some tokens of a row of a buffer, in bytes.
    fn size_of_tokens(&self, buffer: &DynTensor, tokens: usize) -> u64 {
        let element = self.element.bytes();
        match *sizes(buffer.shape()) {
            [_, heads, _, channels] => (heads * channels * tokens * element) as u64,
            _ => 0,
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Host => f.write_str("Host"),
            Place::Device { device, number, .. } => write!(f, "Device({}:{number})", device.as_str()),
        }
    }
}

fn first_tokens<T: PrimitiveTensorElementType + Copy + fmt::Debug + 'static>(
    tensor: &DynTensor,
    tokens: usize,
) -> ort::Result<DynTensor> {
    let (shape, elements) = tensor.try_extract_tensor::<T>()?;
    let cached = ArrayViewD::from_shape(sizes(shape), elements).map_err(ort::Error::wrap)?;
    let kept = cached.slice_axis(Axis(2), (..tokens.min(cached.len_of(Axis(2)))).into());
    let elements: Vec<T> = kept.iter().copied().collect();
    Ok(Tensor::from_array((kept.shape(), elements))?.upcast())
}

fn copy<T: PrimitiveTensorElementType + Copy>(
    (to, to_place): (&mut DynTensor, CachePlace),
    (from, from_place): (&DynTensor, CachePlace),
    tokens: usize,
) -> ort::Result<()> {
    let (from_shape, source) = from.try_extract_tensor::<T>()?;
    let (to_shape, target) = to.try_extract_tensor_mut::<T>()?;
    copy_tokens((target, &sizes(to_shape), to_place), (source, &sizes(from_shape), from_place), tokens);
    Ok(())
}

/// The operator set of the small graphs.
const OPSET: u32 = 18;

/// The output of the small graphs.
const RESULT: &str = "result";

/// Names of constants in the small graphs.
const BATCH_AXIS: &str = "batch_axis";
const TOKEN_AXIS: &str = "token_axis";
const BEGIN: &str = "begin";
const END: &str = "end";

/// `x[:, :, :tokens]`
fn first_tokens_graph(element: TensorElementType) -> ort::Result<Graph> {
    let mut graph = graph(element, &["x"], &["tokens"])?;
    graph.add_node(slice("x", (BEGIN, "tokens"), TOKEN_AXIS, RESULT)?)?;
    Ok(graph)
}

/// `to`, but with `from[from_row, :, from_token:from_next_token]` at `[to_row, :, to_token:to_next_token]`.
fn copy_tokens_graph(element: TensorElementType) -> ort::Result<Graph> {
    let bounds = ["row", "next_row", "token", "next_token"];
    let bounds = ["to", "from"].map(|side| bounds.map(|bound| format!("{side}_{bound}")));
    let numbers: Vec<&str> = bounds.iter().flatten().map(String::as_str).collect();
    let mut graph = graph(element, &["to", "from"], &numbers)?;
    let nodes = [
        slice("from", ("from_row", "from_next_row"), BATCH_AXIS, "source")?,
        slice("source", ("from_token", "from_next_token"), TOKEN_AXIS, "copied")?,
        slice("to", ("to_row", "to_next_row"), BATCH_AXIS, "target")?,
        slice("target", (BEGIN, "to_token"), TOKEN_AXIS, "tokens_before")?,
        slice("target", ("to_next_token", END), TOKEN_AXIS, "tokens_after")?,
        concat(&["tokens_before", "copied", "tokens_after"], 2, "row")?,
        slice("to", (BEGIN, "to_row"), BATCH_AXIS, "before")?,
        slice("to", ("to_next_row", END), BATCH_AXIS, "after")?,
        concat(&["before", "row", "after"], 0, RESULT)?,
    ];
    for node in nodes {
        graph.add_node(node)?;
    }
    Ok(graph)
}

/// A graph with inputs of the element type of the cache and numbers as other inputs, without nodes.
fn graph(element: TensorElementType, tensors: &[&str], numbers: &[&str]) -> ort::Result<Graph> {
    let outlet = |name: &str, ty, shape: &[i64]| {
        let shape = Shape::new(shape.iter().copied());
        let dimension_symbols = SymbolicDimensions::empty(shape.len());
        Outlet::new(name, ValueType::Tensor { ty, shape, dimension_symbols })
    };
    let mut graph = Graph::new()?;
    let of_cache = |name: &str| outlet(name, element, &[-1, -1, -1, -1]);
    let inputs = tensors.iter().map(|name| of_cache(name));
    graph
        .set_inputs(inputs.chain(numbers.iter().map(|name| outlet(name, TensorElementType::Int64, &[1]))))?;
    graph.set_outputs([of_cache(RESULT)])?;
    for (name, number) in [(BATCH_AXIS, 0), (TOKEN_AXIS, 2), (BEGIN, 0), (END, i64::MAX)] {
        let mut constant = Tensor::<i64>::new(&Allocator::default(), [1_i64])?;
        constant.extract_tensor_mut().1[0] = number;
        graph.add_initializer(name, constant, false)?;
    }
    Ok(graph)
}

fn slice(x: &str, (begin, end): (&str, &str), axis: &str, result: &str) -> ort::Result<Node> {
    Node::new("Slice", ONNX_DOMAIN, result, [x, begin, end, axis], [result], [])
}

fn concat(parts: &[&str], axis: i64, result: &str) -> ort::Result<Node> {
    Node::new("Concat", ONNX_DOMAIN, result, parts, [result], [Attribute::new("axis", axis)?])
}
