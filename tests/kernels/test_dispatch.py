"""Which implementation runs, and what is said when one cannot."""

import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
import triton

import quantizers
from quantizers.kernels.common import dispatch
from quantizers.kernels.common.compiled import library
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.nearest.operation import NEAREST_CODE, nearest_code
from quantizers.kernels.rotation.operation import rotate_grad

X, CODES = torch.randn(1, 5, 3), torch.randn(1, 4, 3)


def test_auto_takes_the_compiled_one_on_a_cpu() -> None:
    with use_implementation() as counts:
        nearest_code(X, CODES)
    assert counts == {("nearest_code", "compiled"): 1}


@pytest.mark.parametrize("name", ["reference", "blocked", "compiled"])
def test_one_by_name_runs(name: str) -> None:
    with use_implementation(name) as counts:
        nearest_code(X, CODES)
        rotate_grad(X, X, X)
    assert counts["nearest_code", name] == 1
    assert counts["rotate_grad", "reference" if name == "blocked" else name] == 1
    assert dispatch.chosen_implementation() == "auto"


def test_blocks_nest_and_the_outer_one_counts_too() -> None:
    with use_implementation("reference") as outer:
        with use_implementation("compiled") as inner:
            nearest_code(X, CODES)
        nearest_code(X, CODES)
    assert inner == {("nearest_code", "compiled"): 1}
    assert outer == {("nearest_code", "compiled"): 1, ("nearest_code", "reference"): 1}


def test_a_block_ends_with_an_error_too() -> None:
    with pytest.raises(KeyError), use_implementation("reference"):
        raise KeyError
    assert dispatch.chosen_implementation() == "auto"


@pytest.mark.parametrize("name", ["vq", "fsq", "gumbel", "rotation_vq"])
def test_the_backward_runs_by_the_implementation_of_its_forward(name: str) -> None:
    options = {"levels": (5, 5, 5)} if name == "fsq" else {"codebook_size": 8}
    quantizer = quantizers.create(name, dim=3, **options)
    x = torch.randn(6, 3, requires_grad=True)
    with use_implementation() as counts:
        with use_implementation("reference"):
            out = quantizer(x)
        (out.quantized.sum() + out.loss).backward()
    assert {implementation for _, implementation in counts} == {"reference"}


def test_another_thread_chooses_for_itself() -> None:
    names = []
    with use_implementation("reference"):
        thread = threading.Thread(target=lambda: names.append(dispatch.chosen_implementation()))
        thread.start()
        thread.join()
    assert names == ["auto"]


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"implementation is 'cpu', expected one of \['auto'"):
        use_implementation("cpu").__enter__()


def test_triton_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with (
        use_implementation("triton"),
        pytest.raises(RuntimeError, match="cannot run nearest_code: it needs a CUDA"),
    ):
        nearest_code(X, CODES)


def test_triton_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    with use_implementation("triton"), pytest.raises(RuntimeError, match="triton is not installed"):
        nearest_code(X, CODES)


@pytest.mark.parametrize(
    ("hip", "capability", "reason"),
    [
        (None, (7, 5), "compute capability 8.0 or newer (tf32 and bfloat16), and cuda:0 has 7.5"),
        ("6.2", (9, 4), "this PyTorch is built for ROCm"),
        (None, (8, 0), ""),
        (None, (12, 0), ""),
    ],
)
def test_a_gpu_that_the_kernels_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, hip: str | None, capability: tuple[int, int], reason: str
) -> None:
    """Without a GPU, the properties that PyTorch would report."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(triton, "__version__", "3.7.1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    dispatch._gpu_obstacle.cache_clear()
    found = dispatch.triton_obstacle(torch.device("cuda", 0))
    dispatch._gpu_obstacle.cache_clear()
    assert found.endswith(reason)
    assert bool(found) == bool(reason)


@pytest.mark.parametrize("version", ["3.2.0", "3.4.0", "3.5.0", "3.10.0"])
def test_a_triton_without_products_in_float64(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Neither its compiler nor its interpreter runs the kernels."""
    works = version.startswith(("3.5", "3.10"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(triton, "__version__", version)
    dispatch._gpu_obstacle.cache_clear()
    reason = dispatch.triton_obstacle(torch.device("cuda", 0))
    dispatch._gpu_obstacle.cache_clear()
    assert reason == ("" if works else f"it needs triton 3.5 or newer, and {version} is installed")
    monkeypatch.setattr(numpy, "__version__", "2.3.5")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.triton_obstacle(torch.device("cpu")) == reason


@pytest.mark.parametrize(
    ("triton_version", "numpy_version", "works"),
    [("3.6.0", "2.4.0", False), ("3.6.0", "2.3.5", True), ("3.7.1", "2.5.1", True), ("3.10.0", "2.10.0", True)],
)
def test_an_interpreter_that_does_not_fit_numpy(
    monkeypatch: pytest.MonkeyPatch, triton_version: str, numpy_version: str, works: bool
) -> None:
    monkeypatch.setattr(triton, "__version__", triton_version)
    monkeypatch.setattr(numpy, "__version__", numpy_version)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    reason = dispatch.triton_obstacle(torch.device("cpu"))
    sentence = f"the interpreter of triton {triton_version} does not work with numpy {numpy_version}"
    assert reason.startswith("" if works else sentence)
    assert bool(reason) == (not works)


def test_compiled_needs_a_cpu() -> None:
    with (
        use_implementation("compiled"),
        pytest.raises(RuntimeError, match="it runs on a CPU, and the tensors are on"),
    ):
        NEAREST_CODE.run(X.to("meta"), CODES.to("meta"))


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither a compiler, nor a folder with what one has compiled."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("QUANTIZERS_CACHE", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    library.forget()
    dispatch.warn_once.cache_clear()
    yield
    monkeypatch.undo()
    library.forget()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_plain_torch_serves_and_says_so_once() -> None:
    with pytest.warns(RuntimeWarning, match="no-such-compiler") as caught, use_implementation() as counts:
        indices, _ = nearest_code(X, CODES)
    assert len(caught) == 1
    assert counts == {("nearest_code", "blocked"): 1}
    with warnings.catch_warnings(), use_implementation() as counts:
        warnings.simplefilter("error")
        nearest_code(X, CODES)
        rotate_grad(X, X, X)
    assert counts == {("nearest_code", "blocked"): 1, ("rotate_grad", "reference"): 1}
    with use_implementation("reference"):
        assert torch.equal(nearest_code(X, CODES)[0], indices)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_compiled_one_by_name_raises() -> None:
    with (
        use_implementation("compiled"),
        pytest.raises(RuntimeError, match=r"cannot run nearest_code.*no-such-compiler"),
    ):
        nearest_code(X, CODES)
