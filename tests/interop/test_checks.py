"""The checks themselves: each finds what it is there to find."""

import pathlib
import tempfile
import unittest

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

import contract
import golden
import rules
import sparsity
import validity

SIZES = contract.Sizes(layers=1, hidden=8, vocabulary=16, experts=2, experts_per_token=1, heads=2, head_width=4, labels=3)


def model(nodes, initializers=(), opset=21, ir_version=10, domain=""):
    """A model with input and output `x` and `y`, both float [n]."""
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "graph", [value("x")], [value("y")], list(initializers))
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def addition(constant):
    node = helper.make_node("Add", ["x", "one"], ["y"], name="add")
    return model([node], [numpy_helper.from_array(numpy.asarray(constant, numpy.float32), "one")])


def broken_rules(found, opset=None):
    return rules.problems(found, pathlib.Path("model.onnx"), opset)


class Rules(unittest.TestCase):
    def test_a_plain_graph_breaks_no_rule(self):
        self.assertEqual(broken_rules(addition(1.0)), [])

    def test_a_foreign_operator_is_named(self):
        found = broken_rules(model([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")], domain="com.microsoft"))
        self.assertIn("operator com.microsoft.Gelu is not standard", found)
        self.assertIn("the operator set com.microsoft is imported", found)

    def test_a_foreign_operator_in_a_subgraph_is_named(self):
        inner = model([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]).graph
        node = helper.make_node("If", ["condition"], ["y"], then_branch=inner, else_branch=inner)
        self.assertEqual(broken_rules(model([node])), ["operator com.microsoft.Gelu is not standard"])

    def test_a_newer_opset_must_be_asked_for(self):
        newer = model([helper.make_node("Relu", ["x"], ["y"])], opset=22)
        self.assertEqual(len(broken_rules(newer)), 1)
        self.assertEqual(broken_rules(newer, opset=22), [])
        self.assertEqual(broken_rules(newer, opset=20), ["opset 22 where 20 was asked for"])

    def test_a_newer_file_format_is_refused(self):
        newer = model([helper.make_node("Relu", ["x"], ["y"])], ir_version=11)
        self.assertEqual(broken_rules(newer), ["IR version 11 is newer than 10"])

    def test_a_scalar_of_rank_one_is_refused(self):
        self.assertEqual(broken_rules(addition([1.0])), ["one in Add add is a scalar of shape [1]"])

    def test_a_vector_of_length_one_beside_another_is_no_scalar(self):
        constant = numpy_helper.from_array(numpy.asarray([1.0], numpy.float32), "one")
        found = model([helper.make_node("Add", ["one", "one"], ["y"])], [constant])
        self.assertEqual(broken_rules(found), [])

    def test_a_vector_of_several_elements_is_no_scalar(self):
        self.assertEqual(broken_rules(addition([1.0, 2.0])), [])

    def test_external_data_lies_beside_the_graph_and_is_whole(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "model.onnx")
            pathlib.Path(folder, "model.onnx_data").write_bytes(bytes(72))
            self.assertEqual(self.external(path, location="model.onnx_data", offset=64), [])
            for location, offset, problem in [
                ("other/model.onnx_data", 0, "lies in"),
                ("model.onnx_data", 32, "no multiple of 64"),
                ("model.onnx_data", 128, "past the 72 bytes"),
            ]:
                found = self.external(path, location, offset)
                self.assertEqual([problem in text for text in found], [True], found)

    def external(self, path, location, offset):
        found = addition([1.0, 2.0])
        onnx.external_data_helper.set_external_data(found.graph.initializer[0], location, offset=offset, length=8)
        return rules.problems(found, path, None)


class Validity(unittest.TestCase):
    def problems(self, found):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "model.onnx")
            path.write_bytes(found.SerializeToString())
            return validity.problems(path)

    def test_a_plain_graph_is_valid(self):
        self.assertEqual(self.problems(addition(1.0)), [])

    def test_a_missing_input_is_found(self):
        self.assertEqual(len(self.problems(model([helper.make_node("Add", ["x", "nowhere"], ["y"])]))), 1)

    def test_a_wrong_element_type_is_found(self):
        cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)
        self.assertEqual(len(self.problems(model([cast]))), 1)

    def test_a_shape_that_cannot_be_inferred_is_found(self):
        # the shape comes from the data, so not even the number of dimensions is known
        nodes = [
            helper.make_node("Cast", ["x"], ["shape"], to=TensorProto.INT64),
            helper.make_node("Expand", ["x", "shape"], ["z"]),
            helper.make_node("Size", ["z"], ["size"]),
            helper.make_node("CastLike", ["size", "x"], ["scalar"]),
            helper.make_node("Add", ["x", "scalar"], ["y"]),
        ]
        self.assertEqual(self.problems(model(nodes)), ["no shape could be inferred for z"])


class Contract(unittest.TestCase):
    def graph(self, task, outputs=frozenset(), sizes=SIZES):
        """A model that keeps the contract and computes nothing."""
        values = lambda wanted: [helper.make_tensor_value_info(*value) for value in wanted]
        inputs, results = contract.expected(task, outputs, sizes)
        return helper.make_model(helper.make_graph([], "graph", values(inputs), values(results)))

    def test_a_graph_that_keeps_the_contract_passes(self):
        everything = {"hidden-states", "router-logits"}
        for task in ("causal-lm", "backbone", "sequence-classification"):
            self.assertEqual(contract.problems(self.graph(task, everything), task, everything, SIZES), [])

    def test_a_missing_output_is_found(self):
        found = contract.problems(self.graph("causal-lm"), "causal-lm", {"hidden-states"}, SIZES)
        self.assertEqual(len(found), 1)
        self.assertIn("hidden_states.1", found[0])

    def test_an_order_that_differs_is_found(self):
        swapped = self.graph("causal-lm")
        swapped.graph.input.insert(0, swapped.graph.input[1])
        del swapped.graph.input[2]
        self.assertEqual(len(contract.problems(swapped, "causal-lm", set(), SIZES)), 1)

    def test_a_dimension_of_another_name_is_found(self):
        renamed = self.graph("causal-lm")
        renamed.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
        self.assertEqual(len(contract.problems(renamed, "causal-lm", set(), SIZES)), 1)

    def test_both_layouts_of_the_config_are_understood(self):
        config = dict(num_hidden_layers=1, hidden_size=8, vocab_size=16, num_key_value_heads=2, kv_channels=4)
        first = contract.Sizes.of(config | {"num_local_experts": 5, "num_experts_per_tok": 3})
        second = contract.Sizes.of(config | {"moe_num_experts": 5, "moe_top_k": 3})
        self.assertEqual(first, second)
        self.assertEqual((first.experts, first.experts_per_token), (5, 3))


class Recited:
    """A causal language model of one layer that recites golden values: a "graph" that computes everything right."""

    def __init__(self, batch=2, length=4, vocabulary=5, generated=3):
        random = numpy.random.default_rng(0)
        tensor = lambda *shape: random.standard_normal(shape).astype(numpy.float32)
        # every value of the whole sequence, golden batch and greedy continuation
        self.total = length + generated
        self.logits = tensor(batch, self.total, vocabulary)
        self.hidden = tensor(batch, self.total, 6)
        self.keys = tensor(batch, 2, self.total, 3)
        self.values = tensor(batch, 2, self.total, 3)
        self.routes = tensor(batch, self.total, 2)
        mask = numpy.ones((batch, length), numpy.int64)
        mask[1, 0] = 0
        prefill = self.logits[:, :length]
        self.golden = {
            "input_ids": numpy.zeros((batch, length), numpy.int64),
            "attention_mask": mask,
            "position_ids": (mask.cumsum(-1) - 1).clip(0),
            "embeddings": self.hidden[:, :length],
            "layer.0.output": self.hidden[:, :length],
            "layer.0.mlp_router_logits": self.routes[:, :length].reshape(batch * length, 2),
            "logits": prefill,
            "present.0.key": self.keys[:, :, :length],
            "present.0.value": self.values[:, :, :length],
            "next.input_ids": prefill[:, -1:].argmax(-1),
            "next.logits": self.logits[:, length : length + 1],
            "generated": self.logits[:, length - 1 : -1].argmax(-1),
        }

    def __call__(self, inputs):
        rows, new = inputs["input_ids"].shape
        end = inputs["attention_mask"].shape[1]
        past = inputs["past_key_values.0.key"].shape[2]
        assert past + new == end, "the cache does not fit the mask"
        return {
            "logits": self.logits[:rows, past:end].copy(),
            "present.0.key": self.keys[:rows, :, :end].copy(),
            "present.0.value": self.values[:rows, :, :end].copy(),
            "hidden_states.0": self.hidden[:rows, past:end].copy(),
            "hidden_states.1": self.hidden[:rows, past:end].copy(),
            "mlp_router_logits.0": self.routes[:rows, past:end].copy(),
        }

    def check(self, spoil=lambda inputs, outputs: None):
        """Compares what is left when `spoil` has changed outputs."""

        def run(inputs):
            outputs = self(inputs)
            spoil(inputs, outputs)
            return outputs

        nothing = numpy.zeros((1, 2, 0, 3), numpy.float32)
        cache = {"past_key_values.0.key": nothing, "past_key_values.0.value": nothing}
        return golden.Case(self.golden, "causal-lm", cache, end_token=-1, filler=-1).check(run)


OUTPUTS = (
    "logits", "present.0.key", "present.0.value", "hidden_states.0", "hidden_states.1", "mlp_router_logits.0"
)  # fmt: skip


class Golden(unittest.TestCase):
    def test_the_golden_values_agree_with_themselves(self):
        comparison = Recited().check()
        self.assertEqual(comparison.problems, [])
        self.assertEqual(comparison.errors, {"logits": 0.0, "hidden": 0.0, "router": 0.0, "cache": 0.0})

    def test_an_error_in_any_output_is_found(self):
        for name in OUTPUTS:
            with self.subTest(name):

                def spoil(_inputs, outputs):
                    outputs[name][0, ..., -1, -1] += 1e-3

                self.assertTrue(any(name in text for text in Recited().check(spoil).problems))

    def test_an_error_below_the_tolerance_is_none(self):
        def spoil(_inputs, outputs):
            outputs["logits"] += golden.LOGITS_TOLERANCE / 2

        comparison = Recited().check(spoil)
        self.assertEqual(comparison.problems, [])
        self.assertAlmostEqual(comparison.errors["logits"], 0.5, places=2)

    def test_padded_positions_are_not_compared_but_must_be_finite(self):
        def spoil_with(value):
            def spoil(inputs, outputs):
                if inputs["input_ids"].shape[0] == 2 and inputs["past_key_values.0.key"].shape[2] == 0:
                    outputs["logits"][1, 0] = value

            return spoil

        self.assertEqual(Recited().check(spoil_with(1e3)).problems, [])
        self.assertTrue(any("not finite" in text for text in Recited().check(spoil_with(numpy.nan)).problems))

    def test_an_error_that_only_the_cache_causes_is_found(self):
        def spoil(inputs, outputs):
            if inputs["past_key_values.0.key"].shape[2] > 0:
                outputs["hidden_states.1"] += 1.0

        found = Recited().check(spoil).problems
        self.assertEqual([text.split(" is off")[0] for text in found], ["hidden_states.1 of the second piece"])

    def test_another_greedy_token_is_found(self):
        def spoil(inputs, outputs):
            if inputs["past_key_values.0.key"].shape[2] == 5:
                outputs["logits"] *= -1

        self.assertEqual(Recited().check(spoil).problems, ["the greedy continuation differs"])

    def test_an_output_without_a_golden_value_is_a_problem(self):
        def spoil(_inputs, outputs):
            outputs["hidden_states.7"] = outputs["hidden_states.1"]

        self.assertTrue(all("no golden value" in text for text in Recited().check(spoil).problems))
        self.assertTrue(Recited().check(spoil).problems)

    def test_another_shape_is_a_problem(self):
        def spoil(_inputs, outputs):
            outputs["mlp_router_logits.0"] = outputs["mlp_router_logits.0"][..., :1]

        self.assertTrue(all("has the shape" in text for text in Recited().check(spoil).problems))
        self.assertTrue(Recited().check(spoil).problems)


def routed_model(dense=(), left_out=(), misused=(), quantized=False):
    """One layer of two experts, of which a token uses the one of its larger score; its scores are its embedding."""
    constants = {"table": TOKENS, "rows": [-1, 2], "first": [0], "0": 0, "1": 1}
    if quantized:
        constants["scale"] = numpy.float32(1)
    arrays = [numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants.items()]
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["embedding"]),
        node("Reshape", ["embedding", "rows"], ["tokens"]),
        node("ArgMax", ["tokens"], ["chosen"], axis=1, keepdims=0),
    ]
    for expert in ("0", "1"):
        nodes += [
            node("Equal", ["chosen", expert], [f"uses.{expert}"]),
            node("NonZero", [f"uses.{expert}"], [f"indices.{expert}"]),
            node("Squeeze", [f"indices.{expert}", "first"], [f"of.{expert}"]),
            node("Gather", ["tokens", f"of.{expert}"], [f"rows.{expert}"]),
        ]
        for mixture in sparsity.ROUTERS:
            for part in ("input", "output"):
                weight = f"model.layers.0.{mixture}.{part}_linear.weight.{expert}.T"
                product = sparsity.Product(0, mixture, part, int(expert))
                if product in left_out:
                    continue
                if quantized:
                    codes = f"{weight}.codes"
                    arrays.append(numpy_helper.from_array(numpy.eye(2, dtype=numpy.int8), codes))
                    nodes.append(node("DequantizeLinear", [codes, "scale"], [f"{weight}.restored"]))
                    weight = f"{weight}.restored"
                else:
                    arrays.append(numpy_helper.from_array(numpy.eye(2, dtype=numpy.float32), weight))
                rows = "tokens" if product in dense else f"rows.{expert}"
                nodes.append(node("MatMul", [rows, weight], [f"{weight}.product"]))
                if product in misused:
                    nodes.append(node("Identity", [weight], [f"{weight}.copy"], name="copy"))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask", "position_ids")
    ]
    names = ["tokens", "attn_router_logits.0", "mlp_router_logits.0"]
    nodes += [node("Identity", ["embedding"], [name]) for name in names[1:]]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


# Scores of the experts by token id; tokens 1 and 2 choose the second.
TOKENS = numpy.float32([[1, 0], [0, 1], [-3, -2]])


class Sparsity(unittest.TestCase):
    product = sparsity.Product(0, "mlp", "output", 0)

    def problems(self, experts_per_token=1, has_golden_routes=True, **changes):
        ids = numpy.int64([[1, 0, 2], [0, 0, 1]])
        routes = TOKENS[ids.ravel()]
        if not has_golden_routes:
            routes = -routes
        values = {
            "input_ids": ids,
            "attention_mask": numpy.ones_like(ids),
            "position_ids": numpy.ones_like(ids),
            "layer.0.output": routes,
            "layer.0.attn_router_logits": routes,
            "layer.0.mlp_router_logits": routes,
        }
        case = golden.Case(values, "sequence-classification", {}, end_token=-1, filler=-1)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "model.onnx")
            path.write_bytes(routed_model(**changes).SerializeToString())
            return sparsity.problems(path, case, experts_per_token, has_golden_routes=has_golden_routes)

    def test_experts_that_get_the_rows_of_their_tokens_are_sparse(self):
        self.assertEqual(self.problems(), [])

    def test_experts_whose_matrices_are_restored_from_codes_are_sparse_by_the_graphs_own_routes(self):
        self.assertEqual(self.problems(quantized=True, has_golden_routes=False), [])
        self.assertEqual(len(self.problems(quantized=True, has_golden_routes=False, dense=[self.product])), 2)
        self.assertEqual(len(self.problems(quantized=True, has_golden_routes=False, left_out=[self.product])), 2)

    def test_an_expert_that_gets_every_row_is_found(self):
        self.assertEqual(
            self.problems(dense=[self.product]),
            [
                "the batch: the output product of expert 0 in layer 0's mlp has 6 rows, 3 tokens chose it",
                "one token: the output product of expert 0 in layer 0's mlp has 1 rows, 0 tokens chose it",
            ],
        )

    def test_experts_without_some_of_their_tokens_are_found(self):
        self.assertEqual(len(self.problems(experts_per_token=2)), 2 * 2 * 2 + 2 * 2)

    def test_a_product_that_is_missing_is_found(self):
        found = self.problems(left_out=[self.product])
        self.assertIn("the output product of expert 0 in layer 0's mlp has no rows", found[0])

    def test_another_use_of_an_experts_matrix_is_found(self):
        found = self.problems(misused=[self.product])
        self.assertEqual(found, ["model.layers.0.mlp.output_linear.weight.0.T is an operand of Identity copy"])


if __name__ == "__main__":
    unittest.main()
