"""How an export stores its weights, as the name of its folder says."""

import dataclasses

import onnx

# Precisions whose arithmetic, and so whose cache, is float16.
HALF = ("f16", "q4f16")
PROFILES = ("portable", "onnxruntime")


@dataclasses.dataclass(frozen=True)
class Storage:
    """A precision, options that change it, and the profile of the operators that read the weights."""

    precision: str
    options: tuple[str, ...] = ()
    profile: str = "portable"

    @staticmethod
    def named(folder: str) -> "Storage":
        """PRECISION, then options, then the profile if it is not the portable one, joined by `+`."""
        precision, *rest = folder.split("+")
        profile = rest.pop() if rest and rest[-1] in PROFILES else "portable"
        return Storage(precision, tuple(rest), profile)

    def __str__(self) -> str:
        return "+".join([self.precision, *self.options, *([] if self.is_portable() else [self.profile])])

    def is_portable(self) -> bool:
        return self.profile == "portable"

    def in_portable_profile(self) -> "Storage":
        return dataclasses.replace(self, profile="portable")

    def computes_in_half(self) -> bool:
        return self.precision in HALF

    def activations(self) -> int:
        """ONNX's element type of the key/value cache."""
        return onnx.TensorProto.FLOAT16 if self.computes_in_half() else onnx.TensorProto.FLOAT

    def foreign_operators(self) -> frozenset[tuple[str, str]]:
        """Domain and name of the operators that are allowed beside the standard ones."""
        if self.is_portable():
            return frozenset()
        names = ("MatMulNBits", "GatherBlockQuantized", "GroupQueryAttention", "RotaryEmbedding")
        return frozenset(("com.microsoft", name) for name in names)
