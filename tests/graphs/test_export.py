"""9: `torch.export` of forward in evaluation, encode and decode with dynamic shapes, and on to ONNX."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from quantizers.export import Decode, Encode, plain
from quantizers.kernels.highest import exported as plain_highest
from quantizers.kernels.highest import reference as highest_reference
from quantizers.kernels.implicit import exported as plain_implicit
from quantizers.kernels.implicit import reference as implicit_reference
from quantizers.kernels.k_nearest import exported as plain_k_nearest
from quantizers.kernels.k_nearest import reference as k_nearest_reference
from quantizers.kernels.nearest import exported as plain_nearest
from quantizers.kernels.nearest import reference
from quantizers.kernels.soft import exported as plain_soft
from quantizers.kernels.soft import reference as soft_reference
from quantizers.kernels.soft.mean_softmax import log_mean_softmax
from tests.cases import CASES, Case, batch, cases_where, indices_for, normal, rounding_tolerance
from tests.exact import assert_nearest
from tests.vectors import few, finite, vectors
from tests.versions import TORCH, needs_torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"),
    # torch 2.6 warns twice of each constant that it turns from an input of a program into a module's attribute.
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node with no underlying:UserWarning"),
    pytest.mark.filterwarnings("ignore:Node .* target .* does not reference an nn.Module:UserWarning"),
]

DYNAMIC = getattr(torch.export.Dim, "DYNAMIC", None)
FREE = {0: DYNAMIC, 1: DYNAMIC}
# What changes these graphs: not an option that moves training alone.
codes_cases = cases_where(
    lambda case: case.has_codes and not case.options.keys() & {"gradient", "decoder_gradient", "hard"}
)
# ONNX has to know each operation in them: which codes they are read from is nothing to it, and the products of a
# network of codes are those of a projection.
(NETWORK,) = [case for case in CASES if isinstance(case.options.get("transform"), nn.Module)]
DECODED = [Case("vq"), Case("fsq"), NETWORK]
ENCODED = [*DECODED, Case("gumbel"), Case("vq", {"distance": "cosine"})]


with_free_axes = needs_torch(2, 6, "torch.export.Dim.DYNAMIC")


def export(module: nn.Module, *example: Tensor) -> torch.export.ExportedProgram:
    """With all leading axes dynamic.

    Before torch 2.7, a program that switches gradients off, as that of `Encode`, cannot be saved.
    """
    with torch.set_grad_enabled(TORCH >= (2, 7) or not isinstance(module, (Encode, Candidates))):
        return torch.export.export(module, example, dynamic_shapes=[FREE] * len(example), strict=False)


def saved(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Through a file and back."""
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def with_garbage(*shape: int, seed: int = 1) -> Tensor:
    x = batch(*shape, seed=seed)
    x[0, 0, 1], x[-1, -1, 0] = torch.nan, torch.inf
    return x


def assert_equal_with_nan(a: Tensor, b: Tensor) -> None:
    assert a.dtype == b.dtype
    assert torch.equal(a.isnan(), b.isnan())
    assert torch.equal(a.nan_to_num(), b.nan_to_num())


def assert_runs_from_a_file(module: nn.Module) -> None:
    x, mask = with_garbage(3, 7), torch.ones(3, 7, dtype=torch.bool)
    mask[2, 3] = False
    program = saved(export(module, batch(2, 15), torch.ones(2, 15, dtype=torch.bool))).module()
    found, expected = program(x, mask), module(x, mask)
    assert type(found) is type(expected)
    for a, b in zip(*(v if isinstance(v, tuple) else (v,) for v in (found, expected)), strict=True):
        assert_equal_with_nan(a, b)


@with_free_axes
@pytest.mark.methods
@cases_where(lambda case: not case.is_variation or "distance" in case.options or case.multiplies)
def test_forward_runs_from_a_file_at_other_shapes(case: Case) -> None:
    assert_runs_from_a_file(case.build().eval())


@with_free_axes
@pytest.mark.foundations
@codes_cases
def test_encode_runs_from_a_file_at_other_shapes(case: Case) -> None:
    assert_runs_from_a_file(Encode(case.build()))


@with_free_axes
@pytest.mark.foundations
@codes_cases
def test_decode_runs_from_a_file_at_other_shapes(case: Case) -> None:
    quantizer = case.build()
    example = indices_for(quantizer, torch.zeros(2, 5, dtype=torch.int64))
    program = saved(export(Decode(quantizer), example)).module()
    indices = indices_for(quantizer, torch.tensor([[-1, 3, 7, 0]]))
    assert_equal_with_nan(program(indices), quantizer.decode(indices))
    strange = program(indices_for(quantizer, torch.tensor([[-2, quantizer.codebook_size, 2**62, 1]])))
    assert strange[0, :3].isnan().all()
    assert strange[0, 3].isfinite().all()


FRESH = """
import sys
from pathlib import Path
import torch
import quantizers
folder = Path(sys.argv[1])
for path in folder.glob("*.pt2"):
    inputs = torch.load(path.with_suffix(".in"), weights_only=True)
    outputs = torch.export.load(path).module()(*inputs)
    torch.save(list(outputs) if isinstance(outputs, tuple) else [outputs], path.with_suffix(".out"))
"""


@with_free_axes
def test_programs_run_in_a_fresh_process(tmp_path: Path) -> None:
    expected: dict[str, list[Tensor]] = {}
    for name in ("vq", "fsq", "gumbel"):  # each has operations of its own to find there
        quantizer = Case(name).build().eval()
        modules: list[tuple[str, nn.Module, Tensor]] = [
            ("forward", quantizer, batch(2, 9)),
            ("encode", Encode(quantizer), batch(2, 9)),
            ("decode", Decode(quantizer), indices_for(quantizer, torch.arange(20).view(2, 10))),
        ]
        for method, module, example in modules:
            path = tmp_path / f"{name}-{method}.pt2"
            torch.export.save(export(module, example), path)
            inputs = [example[:1].clone()] if method == "decode" else [with_garbage(1, 5)]
            torch.save(inputs, path.with_suffix(".in"))
            outputs: Any = module(*inputs)
            expected[path.stem] = list(outputs) if isinstance(outputs, tuple) else [outputs]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for stem, tensors in expected.items():
        for a, b in zip(torch.load(tmp_path / f"{stem}.out", weights_only=True), tensors, strict=True):
            assert_equal_with_nan(a, b.detach())


def in_onnx_runtime(module: nn.Module, examples: list[Tensor], inputs: list[Tensor]) -> Tensor:
    """What ONNX Runtime makes of `inputs`, by a graph exported with `examples`."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = torch.onnx.export(plain(export(module, *examples)), dynamo=True, verbose=False)
    # ONNX Runtime 1.23 fuses products in float64, as torch 2.6 writes them, to an operation that it does not have.
    fusion = ["MatmulTransposeFusion"] if TORCH < (2, 7) else []
    session = onnxruntime.InferenceSession(model.model_proto.SerializeToString(), disabled_optimizers=fusion)
    feed = {node.name: tensor.numpy() for node, tensor in zip(session.get_inputs(), inputs, strict=True)}
    (result,) = session.run(None, feed)
    return torch.from_numpy(result)


@with_free_axes
@pytest.mark.slow
@pytest.mark.parametrize("case", ENCODED, ids=str)
def test_onnx_encodes_to_the_same_indices(case: Case) -> None:
    quantizer = case.build().eval()
    x, mask = with_garbage(3, 70), torch.ones(3, 70, dtype=torch.bool)
    mask[2, 3] = False
    found = in_onnx_runtime(Encode(quantizer), [batch(2, 5), torch.ones(2, 5, dtype=torch.bool)], [x, mask])
    assert torch.equal(found, quantizer.encode(x, mask))


@with_free_axes
@pytest.mark.slow
@pytest.mark.parametrize("case", DECODED, ids=str)
def test_onnx_decodes_to_the_same_vectors(case: Case) -> None:
    quantizer = case.build().eval()
    indices = indices_for(quantizer, torch.arange(-1, min(29, quantizer.codebook_size)).view(1, -1))
    example = indices_for(quantizer, torch.zeros(2, 5, dtype=torch.int64))
    found = in_onnx_runtime(Decode(quantizer), [example], [indices])
    expected = quantizer.decode(indices).detach()
    assert ((found - expected).abs() <= rounding_tolerance(quantizer)).all()
    assert (found[0, 0] == 0).all()


@with_free_axes
def test_what_has_no_plain_form_is_named() -> None:
    with pytest.raises(ValueError, match=r"quantizers\.sinkhorn_potentials\.default cannot be rewritten"):
        plain(export(Case("optvq").build(), batch(2, 5)))


@with_free_axes
@pytest.mark.parametrize("name", ["vq", "gumbel", pytest.param("qinco", marks=pytest.mark.long)])
def test_a_plain_program_of_the_whole_forward_agrees(name: str) -> None:
    quantizer = Case(name).build().eval()
    program = plain(export(quantizer, batch(2, 5)))
    x = with_garbage(3, 9)
    for a, b in zip(program.module()(x), quantizer(x), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


# The plain operations themselves, against exact fractions and the reference


@given(seed=st.integers(0, 2**31), block=st.sampled_from([1, 3, 64]), draws=st.booleans())
def test_plain_soft_codes_are_those_of_the_reference(seed: int, block: int, draws: bool) -> None:
    x, keys, values = (normal(seed + place, *shape) for place, shape in enumerate([(9, 3), (7, 3), (7, 2)]))
    noise = torch.tensor(seed) if draws else None
    arguments = (x, keys, normal(seed, 7), values, torch.tensor(0.5, dtype=torch.float64), noise)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_soft, "BLOCK", block)
        found = plain_soft.soft_codes(*arguments)
        mean = plain_soft.log_mean_softmax(*arguments[:3], x[:, 0] > 0)
    for a, b in zip(found, soft_reference.soft_codes(*arguments), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(mean, log_mean_softmax(*arguments[:3], x[:, 0] > 0))


@given(seed=st.integers(0, 2**31), block=st.sampled_from([1, 3, 64]))
def test_plain_search_of_a_network_is_that_of_the_reference(seed: int, block: int) -> None:
    shapes = [(9, 3), (9, 3), (7, 3), (3, 6), (3,), (8, 3), (3, 8)]
    targets, context, codes, weight, bias, *blocks = (
        normal(seed + place, *shape) for place, shape in enumerate(shapes)
    )
    arguments = (targets, context, torch.cat([codes, codes]), weight, bias, blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_implicit, "BLOCK", block)
        found = plain_implicit.nearest_implicit_code(*arguments)
    assert torch.equal(found, implicit_reference.nearest_implicit_code(*arguments))


@given(
    x=vectors(3, 8, st.one_of(finite, few)),
    codebook=vectors(3, 7, st.one_of(finite, few)),
    block=st.integers(1, 8),
)
def test_plain_nearest_code_is_as_near_as_float64_can_tell(x: Tensor, codebook: Tensor, block: int) -> None:
    """Its score exceeds the smallest by at most four times the bound (3) of kernels/nearest/README.md."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_nearest, "BLOCK", block)
        indices, distance = plain_nearest.nearest_code(x[None], codebook[None])
    d, packed = x.shape[1], reference.pack(codebook)
    centred = x.double() - packed.centre
    scores = packed.half_norms - centred @ packed.centred.T
    length = torch.linalg.vector_norm(centred, dim=-1)
    bound = (d + 8) * 2.0**-53 * (length * packed.radius + 0.5 * packed.radius.square())
    chosen = scores.gather(1, indices[0][:, None])[:, 0]
    assert (chosen <= scores.amin(-1) + 5 * bound).all()
    assert torch.equal(distance[0], (x - codebook[indices[0]]).square().sum(-1))


@given(seed=st.integers(0, 2**31), offset=st.sampled_from([0.0, 1.0, 1000.0]), block=st.sampled_from([5, 64]))
def test_plain_nearest_code_is_exact_on_ordinary_data(seed: int, offset: float, block: int) -> None:
    x, codebook = (normal(seed + i, n, 4, dtype=torch.float32) + offset for i, n in enumerate([20, 33]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_nearest, "BLOCK", block)
        indices, _ = plain_nearest.nearest_code(x[None], codebook[None])
    assert_nearest(indices[0], x, codebook)


@given(seed=st.integers(0, 2**31), block=st.sampled_from([1, 3, 64]))
def test_plain_ties_go_to_the_lowest_index(seed: int, block: int) -> None:
    """Codes that are equal, and vectors midway between two codes."""
    codes = normal(seed, 6, 4, dtype=torch.float32)
    codebook = torch.cat([codes, codes, codes[:2]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_nearest, "BLOCK", block)
        indices, _ = plain_nearest.nearest_code(codes[None], codebook[None])
        between, _ = plain_nearest.nearest_code(torch.zeros(1, 1, 4), torch.stack([-codes[0], codes[0]])[None])
        scores = plain_highest.highest_score(codes, codebook, torch.zeros(14))
    assert torch.equal(indices[0], torch.arange(6))
    assert between == 0
    assert torch.equal(scores, highest_reference.highest_score(codes, codebook, torch.zeros(14)))


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_plain_search_passes_over_what_is_not_finite(broken: float) -> None:
    x, codebook = batch(6), batch(9, seed=1)
    x[2, 0], codebook[0, 1] = broken, broken
    indices, distance = plain_nearest.nearest_code(x[None], codebook[None])
    expected, expected_distance = reference.nearest_code(x[None], codebook[None])
    assert torch.equal(indices, expected)
    assert indices[0, 2] == -1
    torch.testing.assert_close(distance, expected_distance, equal_nan=True)
    none, _ = plain_nearest.nearest_code(x[None], torch.full((1, 3, 4), broken))
    assert (none == -1).all()


@given(seed=st.integers(0, 2**31), block=st.sampled_from([1, 5, 64]), k=st.sampled_from([2, 7, 22]))
def test_plain_k_nearest_codes_are_those_of_the_reference(seed: int, block: int, k: int) -> None:
    """On ordinary data, with codes that are equal, and with vectors and codes that are not finite."""
    x, codes = (normal(seed + i, n, 4, dtype=torch.float32) for i, n in enumerate([9, 16]))
    codebook = torch.cat([codes, codes[:6]])
    x[2, 0], codebook[3, 1] = torch.nan, torch.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_k_nearest, "BLOCK", block)
        indices, distance = plain_k_nearest.k_nearest_codes(x[None], codebook[None], k)
    expected, expected_distance = k_nearest_reference.k_nearest_codes(x[None], codebook[None], k)
    assert torch.equal(indices, expected)
    torch.testing.assert_close(distance, expected_distance, equal_nan=True)


class Candidates(nn.Module):
    """Indices and squared distances side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.quantizer = Case("vq").build()

    def forward(self, x: Tensor) -> Tensor:
        indices, distances = self.quantizer.candidates(x, 3)
        return torch.cat([indices.to(distances.dtype), distances], -1)


@with_free_axes
def test_candidates_run_from_a_file_at_other_shapes() -> None:
    module, x = Candidates().eval(), with_garbage(4, 6)
    torch.testing.assert_close(saved(export(module, batch(2, 5))).module()(x), module(x), equal_nan=True)


@with_free_axes
@pytest.mark.filterwarnings("ignore:.torch.jit.")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_candidates_leave_the_library() -> None:
    """Through `plain` to ONNX, and through `torch.jit.trace`."""
    module, example, x = Candidates().eval(), batch(2, 5), with_garbage(4, 6)
    torch.testing.assert_close(in_onnx_runtime(module, [example], [x]), module(x), equal_nan=True)
    torch.testing.assert_close(torch.jit.trace(module, (example,))(x), module(x), equal_nan=True)
