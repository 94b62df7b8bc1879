"""llama.cpp: a model for it, and its C interface.

`llama_cpp.py --layers N --output FILE` writes a Mixtral with random weights that reads and computes per token what a JetMoE of
JetMoE-8B's widths does: 32 query and 16 key heads of 128 stand for the mixture of attention heads, of whose 8 experts with 16
query heads each token selects two. `cargo xtask bench` calls it; `models.py` steps the model with `LlamaCpp`.

The libraries are those of the npm package `@node-llama-cpp/linux-x64` (`llama-cpp/package.json`), which has a build for every
generation of processors, and chooses at run time.
"""

import argparse
import ctypes
import json
import platform
import sys
from pathlib import Path

import numpy as np

HIDDEN, INTERMEDIATE, EXPERTS, PER_TOKEN = 2048, 5632, 8, 2
HEADS, KEY_HEADS, HEAD = 32, 16, 128
VOCABULARY, POSITIONS = 32000, 4096
PACKAGES = Path(".cache/llama-cpp/node_modules/@node-llama-cpp")


def write(output, layers, vocabulary):
    """Writes the model: layers in Q4_0 and the tied embedding in Q6_K, as llama.cpp's own quantization to Q4_0 does."""
    import gguf

    types = gguf.GGMLQuantizationType
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(output, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(PER_TOKEN)
    writer.add_vocab_size(VOCABULARY)
    if vocabulary:
        pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
        pieces += [f"\u2581t{number}" for number in range(VOCABULARY - len(pieces))]
        kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
        kinds += [gguf.TokenType.NORMAL] * (VOCABULARY - len(kinds))
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores([0.0] * VOCABULARY)
        writer.add_token_types(kinds)
    else:
        writer.add_tokenizer_model("none")

    def blocks(count, kind):
        """Random codes with a small scale."""
        _, size = gguf.GGML_QUANT_SIZES[kind]
        codes = random.integers(0, 256, (count, size), np.uint8)
        # the scale comes first in Q4_0; in Q6_K it comes last, after 16 signed scales of 8 bits
        scale = slice(0, 2) if kind == types.Q4_0 else slice(size - 2, size)
        if kind == types.Q6_K:
            codes[:, size - 18 : size - 2] = 32
        codes[:, scale] = np.frombuffer(np.float16(0.005 if kind == types.Q4_0 else 0.0001).tobytes(), np.uint8)
        return codes

    tensors = []

    def quantized(name, *shape, kind=types.Q4_0):
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        bytes_per_row = shape[-1] // weights * size
        rows = int(np.prod(shape[:-1]))
        tensors.append((name, kind, lambda: blocks(rows * shape[-1] // weights, kind)))
        writer.add_tensor_info(name, (*shape[:-1], bytes_per_row), np.dtype(np.uint8), rows * bytes_per_row, kind)

    def floats(name, value):
        tensors.append((name, types.F32, lambda: value))
        writer.add_tensor_info(name, value.shape, value.dtype, value.nbytes)

    quantized("token_embd.weight", VOCABULARY, HIDDEN, kind=types.Q6_K)
    floats("output_norm.weight", np.ones(HIDDEN, np.float32))
    for layer in range(layers):
        name = f"blk.{layer}"
        floats(f"{name}.attn_norm.weight", np.ones(HIDDEN, np.float32))
        quantized(f"{name}.attn_q.weight", HEADS * HEAD, HIDDEN)
        quantized(f"{name}.attn_k.weight", KEY_HEADS * HEAD, HIDDEN)
        quantized(f"{name}.attn_v.weight", KEY_HEADS * HEAD, HIDDEN)
        quantized(f"{name}.attn_output.weight", HIDDEN, HEADS * HEAD)
        floats(f"{name}.ffn_norm.weight", np.ones(HIDDEN, np.float32))
        floats(f"{name}.ffn_gate_inp.weight", random.standard_normal((EXPERTS, HIDDEN), np.float32))
        quantized(f"{name}.ffn_gate_exps.weight", EXPERTS, INTERMEDIATE, HIDDEN)
        quantized(f"{name}.ffn_up_exps.weight", EXPERTS, INTERMEDIATE, HIDDEN)
        quantized(f"{name}.ffn_down_exps.weight", EXPERTS, HIDDEN, INTERMEDIATE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, _, data in tensors:
        # one at a time, because memory need not hold the model
        writer.write_tensor_data(data())
    writer.close()


class Parameters(ctypes.Structure):
    """A struct of parameters, passed and returned by value. Larger than any: the functions use the beginning."""

    _fields_ = [("words", ctypes.c_uint32 * 256)]


class Batch(ctypes.Structure):
    """`llama_batch`."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


# the first fields of llama_context_params, with their defaults
CONTEXT_FIELDS = {"n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1}


def library_folder():
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    folder = PACKAGES / f"linux-{machine}" / "bins" / f"linux-{machine}"
    if not folder.is_dir():
        sys.exit(f"llama.cpp is not in {folder}; `cargo xtask bench` installs it")
    return folder.resolve()


def load_libraries():
    """The libraries of ggml and of llama.cpp, with the types of the functions that are called."""
    folder = library_folder()
    ggml, llama = (ctypes.CDLL(str(next(folder.glob(name))), ctypes.RTLD_GLOBAL) for name in ["libggml.*", "libllama.*"])
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    functions = {
        "llama_model_default_params": (Parameters, []),
        "llama_context_default_params": (Parameters, []),
        "llama_model_load_from_file": (pointer, [text, Parameters]),
        "llama_init_from_model": (pointer, [pointer, Parameters]),
        "llama_free": (None, [pointer]),
        "llama_set_n_threads": (None, [pointer, ctypes.c_int32, ctypes.c_int32]),
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_clear": (None, [pointer, ctypes.c_bool]),
        "llama_batch_init": (Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
        "llama_decode": (ctypes.c_int32, [pointer, Batch]),
        "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [pointer, ctypes.c_int32]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(llama, name)
        function.restype, function.argtypes = result, arguments
    # one library for each generation of processors; the best one is used
    ggml.ggml_backend_load_all_from_path.argtypes = [text]
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    llama.llama_backend_init()
    return llama


class LlamaCpp:
    """The model in llama.cpp, with its defaults: a float16 cache, and weights in the layout of the processor."""

    def __init__(self, arguments):
        self.llama = load_libraries()
        self.threads = arguments.threads
        self.positions = max(prompt for _, prompt in arguments.shapes) + arguments.new_tokens
        self.model = self.llama.llama_model_load_from_file(
            str(arguments.graph).encode(), self.llama.llama_model_default_params()
        )
        if not self.model:
            sys.exit(f"llama.cpp cannot load {arguments.graph}")
        self.vocab_size = VOCABULARY
        self.context, self.batch_size = None, None
        build = json.loads((library_folder() / "_nlcBuildMetadata.json").read_text())["buildOptions"]
        self.runtime = f"llama.cpp {build['llamaCpp']['release']}, Q4_0"

    def begin(self, batch):
        if self.batch_size != batch:
            self.create_context(batch)
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)
        self.length = 0

    def create_context(self, batch):
        if self.context:
            self.llama.llama_free(self.context)
        parameters = self.llama.llama_context_default_params()
        defaults = dict(zip(CONTEXT_FIELDS, parameters.words))
        if defaults != CONTEXT_FIELDS:
            sys.exit(f"llama_context_params begins with other fields than {CONTEXT_FIELDS}: {defaults}")
        # each sequence has its share of the positions, a multiple of 256
        per_sequence = -(-self.positions // 256) * 256
        parameters.words[0] = batch * per_sequence
        parameters.words[3] = batch
        self.context = self.llama.llama_init_from_model(self.model, parameters)
        if not self.context:
            sys.exit("llama.cpp cannot create a context")
        self.llama.llama_set_n_threads(self.context, self.threads, self.threads)
        self.tokens = self.llama.llama_batch_init(batch * self.positions, 0, 1)
        self.batch_size = batch

    def step(self, ids):
        sequences, tokens = ids.shape
        count = ids.size
        self.tokens.n_tokens = count
        arrays = (np.ctypeslib.as_array(getattr(self.tokens, name), (count,)) for name in ["token", "pos", "n_seq_id", "logits"])
        token, position, sequence_count, wanted = arrays
        token[:] = ids.reshape(-1)
        position.reshape(sequences, tokens)[:] = np.arange(self.length, self.length + tokens)
        sequence_count[:] = 1
        wanted.reshape(sequences, tokens)[:] = 0
        wanted.reshape(sequences, tokens)[:, -1] = 1
        for index in range(count):
            self.tokens.seq_id[index][0] = index // tokens
        status = self.llama.llama_decode(self.context, self.tokens)
        if status != 0:
            sys.exit(f"llama_decode returned {status}")
        self.length += tokens
        last = (tokens * (sequence + 1) - 1 for sequence in range(sequences))
        rows = [self.llama.llama_get_logits_ith(self.context, index) for index in last]
        return np.stack([np.ctypeslib.as_array(row, (VOCABULARY,)).copy() for row in rows])


def main():
    parser = argparse.ArgumentParser(description="Writes a Mixtral-shaped model with random weights for llama.cpp.")
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--vocabulary", action="store_true", help="with made-up pieces, which a server needs to answer with texts")
    arguments = parser.parse_args()
    write(arguments.output, arguments.layers, arguments.vocabulary)


if __name__ == "__main__":
    main()
