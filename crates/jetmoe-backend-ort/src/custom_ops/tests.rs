use jetmoe_backend::LoadOptions;
use ort::session::Session;
use ort::value::Tensor;

use super::*;
use crate::graph::{configure, environment};
use crate::library::OnnxRuntimeLibrary;

const NAME: &str = "Panics";

/// An operator whose kernel panics, itself or on the threads of the session.
struct Panics {
    on_threads: bool,
}

impl Operator for Panics {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, _node: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let on_threads = self.on_threads;
        Ok(kernel(move |context| {
            if on_threads {
                SessionThreads { context, count: 2 }.run(&|index| assert!(index > 5, "on thread {index}"));
            }
            panic!("in the kernel")
        }))
    }
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

/// An ONNX model with one node of the operator, from x `[1]` to y `[1]`, in protobuf's encoding.
fn model() -> Vec<u8> {
    let shape = field(1, &field(1, &[0x08, 1])[2..]);
    let tensor = field(1, &[&[0x08, 1], field(2, &shape).as_slice()].concat());
    let value = |name: &[u8]| [field(1, name), field(2, &tensor)].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, NAME.as_bytes()), field(7, b"test")].concat();
    let graph = [field(1, &node), field(2, b"g"), field(11, &value(b"x")), field(12, &value(b"y"))].concat();
    let version = |domain: &[u8], version| field(8, &[field(1, domain), vec![0x10, version]].concat());
    [vec![0x08, 8], field(7, &graph), version(b"", 18), version(b"test", 1)].concat()
}

fn session(on_threads: bool) -> Session {
    let environment = environment(&OnnxRuntimeLibrary::find(None).unwrap()).unwrap();
    let domain = OperatorDomain::new("test").unwrap().add(Panics { on_threads }).unwrap();
    let builder = configure(&environment, &LoadOptions::default().with_threads(2)).unwrap();
    builder.with_operators(domain).unwrap().commit_from_memory(&model()).unwrap()
}

/// ONNX Runtime calls kernels through C, so that a panic would abort the process.
#[test]
fn a_kernel_that_panics_fails_the_run_and_nothing_else() {
    for (on_threads, expected) in [(false, "in the kernel"), (true, "on thread ")] {
        let mut session = session(on_threads);
        for _ in 0..2 {
            let x = Tensor::from_array(([1], vec![1.0_f32])).unwrap();
            let error = session.run(ort::inputs![x]).unwrap_err().to_string();
            assert!(error.contains(&format!("a kernel panicked: {expected}")), "{error}");
        }
    }
}
