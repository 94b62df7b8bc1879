"""The checks of reduced precision: each finds what it is there to find."""

import pathlib
import tempfile
import unittest

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

import contract
import golden
import precision
import rules
import validity
from storage import Storage
from test_checks import SIZES, Recited

FLOAT32, FLOAT16 = Storage("q4"), Storage("q4f16")


class Folders(unittest.TestCase):
    def test_the_name_of_a_folder_says_how_weights_are_stored(self):
        for folder, storage in [
            ("f16", Storage("f16")),
            ("q4+zero-points", Storage("q4", ("zero-points",))),
            ("int8+onnxruntime", Storage("int8", (), "onnxruntime")),
            ("q4+int4-lm_head+onnxruntime", Storage("q4", ("int4-lm_head",), "onnxruntime")),
        ]:
            self.assertEqual(Storage.named(folder), storage)
            self.assertEqual(str(storage), folder)

    def test_the_portable_twin_of_an_export_stores_the_same(self):
        self.assertEqual(str(Storage.named("q4+zero-points+onnxruntime").in_portable_profile()), "q4+zero-points")


class Contract(unittest.TestCase):
    def test_a_cache_of_another_type_is_found(self):
        values = lambda wanted: [helper.make_tensor_value_info(*value) for value in wanted]
        inputs, results = contract.expected("causal-lm", set(), SIZES, FLOAT16.activations())
        model = helper.make_model(helper.make_graph([], "graph", values(inputs), values(results)))
        self.assertEqual(contract.problems(model, "causal-lm", set(), SIZES, FLOAT16.activations()), [])
        self.assertEqual(len(contract.problems(model, "causal-lm", set(), SIZES)), 4)


class Foreign(unittest.TestCase):
    allowed = Storage("q4", (), "onnxruntime").foreign_operators()

    def model(self, operator):
        node = helper.make_node(operator, ["x"], ["y"], domain="com.microsoft")
        value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        graph = helper.make_graph([node], "graph", [value("x")], [value("y")])
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def test_two_operators_of_onnxruntime_are_allowed_in_its_profile(self):
        found = rules.domain_problems(self.model("MatMulNBits"), self.model("MatMulNBits").graph.node, self.allowed)
        self.assertEqual(found, [])

    def test_no_other_is(self):
        found = rules.domain_problems(self.model("Gelu"), self.model("Gelu").graph.node, self.allowed)
        self.assertEqual(found, ["operator com.microsoft.Gelu is not standard"])


class Compared(unittest.TestCase):
    """What is compared is a recital, spoilt or not, with the recital."""

    def case(self, recited):
        nothing = numpy.zeros((1, 2, 0, 3), numpy.float32)
        cache = {"past_key_values.0.key": nothing, "past_key_values.0.value": nothing}
        return golden.Case(recited.golden, "causal-lm", cache, end_token=-1, filler=-1)

    def compare(self, spoil, storage=FLOAT32, **sizes):
        wanted = Recited(**sizes)

        def found(feeds):
            outputs = wanted(feeds)
            spoil(outputs)
            return outputs

        return precision.compare(found, wanted, storage, self.case(wanted), 1)

    def rounded(self, spoil):
        wanted = Recited(length=12, vocabulary=40)

        def found(feeds):
            outputs = wanted(feeds)
            spoil(outputs)
            return outputs

        return precision.rounded_problems(found, wanted, self.case(wanted), 1)

    def test_equal_graphs_are_equal(self):
        for storage in (FLOAT32, FLOAT16):
            comparison = self.compare(lambda outputs: None, storage)
            self.assertEqual(comparison.problems, [])
            self.assertEqual(comparison.errors, {"logits": 0.0, "hidden": 0.0, "router": 0.0, "cache": 0.0})

    def test_an_error_in_any_output_is_found(self):
        for name in ("logits", "present.0.key", "hidden_states.1", "mlp_router_logits.0"):
            with self.subTest(name):

                def spoil(outputs):
                    outputs[name][0, ..., -1, -1] += 1e-3

                self.assertTrue(any(name in text for text in self.compare(spoil).problems))

    def test_float16_allows_some_units_in_the_last_place_and_no_more(self):
        for units, problems in [(16, 0), (128, 2)]:

            def spoil(outputs):
                outputs["logits"] += units * 2.0**-11 * numpy.abs(outputs["logits"]).max()

            self.assertEqual(len(self.compare(spoil, FLOAT16).problems), problems)

    def test_a_token_that_chose_otherwise_is_not_compared_in_float16_nor_are_those_after_it(self):
        def spoil(outputs):
            outputs["mlp_router_logits.0"][0, 5] *= -1
            outputs["logits"][0, 5:] += 1.0

        self.assertEqual(self.compare(spoil, FLOAT16, length=20, batch=3).problems, [])

        def spoil_before(outputs):
            outputs["mlp_router_logits.0"][0, 5] *= -1
            outputs["logits"][0, 4] += 1.0

        self.assertTrue(self.compare(spoil_before, FLOAT16, length=20, batch=3).problems)
        self.assertTrue(self.compare(spoil, FLOAT32, length=20, batch=3).problems)

    def test_too_many_other_choices_are_found(self):
        def spoil(outputs):
            outputs["mlp_router_logits.0"] *= -1

        found = self.compare(spoil, FLOAT16).problems
        self.assertIn("only 0% of the choices are the same", found)
        self.assertIn("only 0% of the tokens are the same", found)
        self.assertEqual(self.rounded(spoil), ["only 0% of the choices with rounded operands are the same"])

    def test_rounded_operands_may_move_logits_a_little(self):
        random = numpy.random.default_rng(1)
        for share, problems in [(0.03, 0), (0.3, 1)]:

            def spoil(outputs):
                noise = random.uniform(-1, 1, outputs["logits"].shape).astype(numpy.float32)
                outputs["logits"] += share * numpy.abs(outputs["logits"]).max() * noise

            self.assertEqual(len(self.rounded(spoil)), problems)

    def test_rounded_operands_must_stay_finite(self):
        def spoil(outputs):
            outputs["present.0.key"][0, 0, 0, 0] = numpy.inf

        self.assertIn("present.0.key of the first piece is not finite", self.rounded(spoil)[0])


def blocked(codes, scales, zeros, kind, block):
    """`x · restored` for codes `[inputs, outputs]`."""
    arrays = [helper.make_tensor("codes", kind, codes.shape, codes.ravel()), numpy_helper.from_array(scales, "scales")]
    operands = ["codes", "scales"]
    if zeros is not None:
        arrays.append(helper.make_tensor("zeros", kind, zeros.shape, zeros.ravel()))
        operands.append("zeros")
    nodes = [
        helper.make_node("DequantizeLinear", operands, ["restored"], axis=0, block_size=block),
        helper.make_node("MatMul", ["x", "restored"], ["y"]),
    ]
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
    inputs, outputs = codes.shape
    graph = helper.make_graph(nodes, "graph", [value("x", inputs)], [value("y", outputs)], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def by_rows(codes, scales):
    """The same weights for MatMulNBits: 4-bit codes from −8 to 7, `[inputs, outputs]`."""
    inputs, outputs = codes.shape
    bytes_ = (codes.T + 8).astype(numpy.uint8)
    packed = (bytes_[:, ::2] | bytes_[:, 1::2] << 4).reshape(outputs, inputs // 32, 16)
    arrays = [numpy_helper.from_array(packed, "codes"), numpy_helper.from_array(scales.T.copy(), "scales")]
    sizes = dict(K=inputs, N=outputs, bits=4, block_size=32, accuracy_level=4)
    node = helper.make_node("MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft", **sizes)
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
    graph = helper.make_graph([node], "graph", [value("x", inputs)], [value("y", outputs)], arrays)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


class Operators(unittest.TestCase):
    """Both packages restore weights as numpy does here, so that what they agree on is right."""

    def test_blocks_are_restored_by_the_definition(self):
        random = numpy.random.default_rng(0)
        inputs, outputs, block = 40, 5, 16
        x = random.standard_normal((3, inputs)).astype(numpy.float32)
        scales = random.uniform(0.1, 1, (3, outputs)).astype(numpy.float32)
        for kind, low, high in [
            (TensorProto.INT4, -8, 8),
            (TensorProto.UINT4, 0, 16),
            (TensorProto.INT8, -127, 128),
            (TensorProto.UINT8, 0, 256),
        ]:
            codes = random.integers(low, high, (inputs, outputs))
            zeros = None if low else random.integers(low, high, (3, outputs))
            model = blocked(codes, scales, zeros, kind, block)
            of_group = numpy.arange(inputs) // block
            restored = (codes - (0 if zeros is None else zeros[of_group])) * scales[of_group].astype(numpy.float64)
            for run in (precision.reference(model), precision.runtime(model)):
                numpy.testing.assert_allclose(run({"x": x})["y"], x @ restored, rtol=1e-4, atol=1e-3)

    def test_operands_are_rounded_unless_products_are_asked_for_in_float32(self):
        random = numpy.random.default_rng(0)
        codes = random.integers(-8, 8, (64, 6))
        scales = random.uniform(0.1, 1, (2, 6)).astype(numpy.float32)
        x = random.standard_normal((3, 64)).astype(numpy.float32)
        wanted = x @ (codes * scales[numpy.arange(64) // 32].astype(numpy.float64))
        exact = precision.with_float32_products(by_rows(codes, scales))
        self.assertIn(precision.FLOAT32_PRODUCTS, [item.i for item in exact.graph.node[0].attribute])
        numpy.testing.assert_allclose(precision.runtime(exact)({"x": x})["y"], wanted, rtol=1e-4, atol=1e-3)
        rounded = precision.runtime(by_rows(codes, scales))({"x": x})["y"]
        self.assertLess(float(numpy.abs(rounded - wanted).max()), 0.02 * float(numpy.abs(wanted).max()))

    def test_a_graph_with_foreign_operators_is_valid_without_their_shapes(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "model.onnx")
            model = by_rows(numpy.zeros((32, 2), numpy.int64), numpy.ones((1, 2), numpy.float32))
            path.write_bytes(model.SerializeToString())
            self.assertEqual(validity.problems(path, is_standard=False), [])
            del model.graph.node[0].output[:]
            model.graph.node[0].output.append("z")
            path.write_bytes(model.SerializeToString())
            self.assertEqual(len(validity.problems(path, is_standard=False)), 1)


if __name__ == "__main__":
    unittest.main()
