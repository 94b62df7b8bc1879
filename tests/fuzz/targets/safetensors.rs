//! Any safetensors file and any index of a checkpoint is read or refused.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use jetmoe_checkpoint::{Checkpoint, names};
use jetmoe_fuzz::{mutate_json_text, mutate_safetensors};
use jetmoe_fuzz_targets::{Mutation, base_file, content, copy_of};
use libfuzzer_sys::fuzz_target;

struct Target {
    folder: PathBuf,
    file: &'static str,
    original: Vec<u8>,
    mutate: Mutation,
}

impl Target {
    fn new(model: &'static str, file: &'static str, mutate: Mutation) -> Self {
        Target { folder: copy_of(model), file, original: base_file(model, file), mutate }
    }
}

static TARGETS: LazyLock<[Target; 4]> = LazyLock::new(|| {
    [
        Target::new("gptq", names::WEIGHTS, mutate_safetensors),
        Target::new("awq", names::WEIGHTS, mutate_safetensors),
        Target::new("compressed-tensors", names::WEIGHTS, mutate_safetensors),
        Target::new("sharded", names::WEIGHTS_INDEX, mutate_json_text),
    ]
});

fuzz_target!(|input: &[u8]| {
    let [first, rest @ ..] = input else { return };
    let target = &TARGETS[usize::from(first % 4)];
    fs::write(target.folder.join(target.file), content(rest, &target.original, target.mutate)).unwrap();
    let Ok(checkpoint) = Checkpoint::open(&target.folder) else { return };
    let tensors = checkpoint.tensors();
    for name in tensors.names() {
        if let Some(view) = tensors.get(name) {
            assert_eq!(view.bytes.len(), view.shape.iter().product::<usize>() * view.dtype.size());
        }
    }
    let _ = checkpoint.check_finite();
    let _ = checkpoint.digest(&|_| ());
});
