"""torch.jit.trace, torch.jit.script and torch.onnx.export of whole models, and tensors that have no values."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import quantizers
from quantizers import Quantizer, QuantizerOutput
from tests.cases import DIM, FOUNDATIONS, Case, batch, every_case, every_method, index_shape, indices_for, modes
from tests.versions import needs_torch

pytestmark = [
    # What PyTorch warns of: TorchScript as a whole, and our checks of shapes, which a trace holds for constant.
    pytest.mark.filterwarnings("ignore:.torch.jit."),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"),
]


class Autoencoder(nn.Module):
    """As people write it: the quantizer is a part, and its output is unpacked."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.encoder, self.quantizer, self.decoder = nn.Linear(DIM, DIM), quantizer, nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quantized, indices, _ = self.quantizer(self.encoder(x))
        return self.decoder(quantized), indices


def traced(module: nn.Module, *example: Tensor, gradients: bool) -> torch.jit.ScriptModule:
    """Through a file and back."""
    with torch.set_grad_enabled(gradients):
        trace = torch.jit.trace(module, example)
    file = io.BytesIO()
    torch.jit.save(trace, file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.methods
@every_case
def test_a_trace_is_saved_and_gives_the_same_at_other_shapes(case: Case) -> None:
    quantizer, x = case.build().eval(), batch(3, 7, seed=4)
    x[1, 2, 0] = torch.nan
    loaded = traced(quantizer, batch(2, 5), gradients=True)
    gradients = []
    for module in (loaded, quantizer):
        x.grad = None
        quantized, _, loss = module(x.requires_grad_())
        (quantized.nan_to_num(0.0).square().sum() + loss).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
    assert_same_outputs(loaded, quantizer, x.detach())
    assert "quantizers::" not in str(loaded.inlined_graph)  # it runs where this library is not


@pytest.mark.methods
@pytest.mark.parametrize("case", FOUNDATIONS, ids=str)
def test_a_trace_without_gradients_is_saved(case: Case) -> None:
    quantizer = case.build().eval()
    assert_same_outputs(traced(quantizer, batch(2, 5), gradients=False), quantizer, batch(3, 7, seed=4))


def assert_same_outputs(loaded: nn.Module, quantizer: Quantizer, x: Tensor) -> None:
    found, expected = QuantizerOutput(*loaded(x)), quantizer(x)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.quantized.nan_to_num(7.0), expected.quantized.nan_to_num(7.0))
    torch.testing.assert_close(found.loss, expected.loss)


WITHOUT_LIBRARY = """
import sys
import torch
model, x = torch.jit.load(sys.argv[1]), torch.load(sys.argv[2], weights_only=True)
assert "quantizers" not in sys.modules
torch.save(list(model(x)), sys.argv[3])
"""


def test_a_trace_runs_in_a_process_without_the_library(tmp_path: Path) -> None:
    model, x = Autoencoder(quantizers.create("vq", dim=DIM, codebook_size=16)).eval(), batch(3, 7)
    paths = [str(tmp_path / name) for name in ("model.pt", "x.pt", "out.pt")]
    torch.jit.save(torch.jit.trace(model, (x[:1],)), paths[0])
    torch.save(x, paths[1])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY, *paths], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    values, indices = torch.load(paths[2], weights_only=True)
    torch.testing.assert_close(values, model(x)[0])
    assert torch.equal(indices, model(x)[1])


@pytest.mark.methods
@every_method
def test_script_says_what_to_do_instead(case: Case) -> None:
    for module in (case.build(), Autoencoder(case.build())):
        with pytest.raises(TypeError, match=r"trace the model instead, in evaluation mode: torch\.jit\.trace"):
            torch.jit.script(module)


def assert_onnx_gives_the_same(name: str, dynamo: bool = True) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x, file = Autoencoder(Case(name).build()).eval(), batch(2, 5), io.BytesIO()
    program = torch.onnx.export(model, (x,), None if dynamo else file, verbose=False, dynamo=dynamo)
    graph = file.getvalue() if program is None else program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(graph)
    values, indices = session.run(None, {session.get_inputs()[0].name: (x + 0.1).numpy()})
    expected = model(x + 0.1)
    torch.testing.assert_close(torch.from_numpy(values), expected[0])
    assert torch.equal(torch.from_numpy(indices), expected[1])


as_it_is = needs_torch(2, 8, "torch.onnx.is_in_onnx_export telling a model that the exporter by graphs traces it")


@as_it_is
@pytest.mark.slow
def test_onnx_of_a_model_as_it_is() -> None:
    assert_onnx_gives_the_same("vq")


@as_it_is
@pytest.mark.foundations
@pytest.mark.long
@every_method
def test_onnx_of_a_model_with_any_quantizer(case: Case) -> None:
    assert_onnx_gives_the_same(case.name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["vq", pytest.param("ibq", marks=pytest.mark.long)])
def test_onnx_by_the_older_exporter(name: str) -> None:
    assert_onnx_gives_the_same(name, dynamo=False)


def assert_same_form(a: Tensor, b: Tensor) -> None:
    assert (a.shape, a.dtype) == (b.shape, b.dtype)


@pytest.mark.methods
@every_case
@modes
def test_without_values_shapes_and_dtypes_are_there(case: Case, training: bool) -> None:
    """On the meta device, for fake tensors of a real quantizer, and where it is fake itself."""
    real, x = case.build().train(training), batch(2, 5)
    shape = index_shape(real, 2, 5)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    contexts: list[tuple[Quantizer, Tensor, Any]] = [
        (case.build().to("meta").train(training), x.to("meta"), torch.device("meta")),
        (real, mode.from_tensor(x), mode),
    ]
    if case.takes_sizes:  # the values of codes that are given are checked, and fake tensors have none
        with mode:
            contexts.append((case.build().train(training), mode.from_tensor(x), mode))
    for quantizer, y, context in contexts:
        with context:
            out = quantizer(y)
            for a, b in zip(out, (x, torch.empty(shape, dtype=torch.int64), torch.zeros(())), strict=True):
                assert_same_form(a, b)
            assert_same_form(quantizer.encode(y), out.indices)
            if case.has_codes:
                assert_same_form(quantizer.decode(out.indices), x)


def test_what_dir_names_can_be_read() -> None:
    """torch.jit.trace reads all of it, of each module in a model."""
    for quantizer in (Case("none").build(), quantizers.create("lfq", dim=DIM, codebook_size=2**40)):
        assert "codebook" not in dir(quantizer)
        assert all(hasattr(quantizer, name) for name in dir(quantizer))
    assert "codebook" in dir(Case("vq").build())


def test_an_index_outside_is_an_error_where_there_are_values() -> None:
    quantizer = Case("vq").build()
    with pytest.raises(IndexError, match="indices range from 0 to 99"):
        quantizer.decode(indices_for(quantizer, torch.tensor([0, 99])))
