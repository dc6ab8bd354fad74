"""Calls that are repeated give what the function gives, and only those are repeated for which this holds."""

import ast
import contextlib
import gc
import importlib
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from quantizers import kernels
from quantizers.kernels.common.triton import recording, replay
from quantizers.kernels.common.triton.recording import Launched, launched
from quantizers.kernels.common.triton.replay import Replayed, replayed
from quantizers.kernels.nearest.triton import nearest
from quantizers.kernels.soft.triton import forward as soft
from tests.triton.calls import CALLS, assert_equal, copied, draw
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels

BLOCK = 16
RECORDED = replay.FIRST + 1  # calls of a kind until one is recorded
REPEATED = RECORDED + 1  # calls until one is repeated


@launched
@triton.jit
def _scale(x_ptr, stride, result_ptr, n, factor, BLOCK: tl.constexpr):
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + places * stride, mask=places < n)
    tl.store(result_ptr + places, x * factor, mask=places < n)


def _scaled(x: Tensor, factor: float) -> Tensor:
    result = torch.empty(len(x), dtype=x.dtype, device=x.device)
    _scale[(triton.cdiv(len(x), BLOCK),)](x, x.stride(0), result, len(x), factor, BLOCK)
    return result


@contextlib.contextmanager
def counted(function: Replayed[..., Any]) -> Iterator[list[None]]:
    """Yield a list with an element for each time that the function itself runs."""
    runs: list[None] = []
    plain = function._function

    def counting(*arguments: Any) -> Any:
        runs.append(None)
        return plain(*arguments)

    function.forget()
    function._function = counting
    try:
        yield runs
    finally:
        function._function = plain
        function.forget()


@pytest.mark.parametrize("name", CALLS)
def test_a_repeated_call_gives_what_the_function_gives(name: str) -> None:
    """Bit for bit, in results and in arguments that the function writes to. The function does not run again."""
    function, arguments = CALLS[name]
    with counted(function) as runs:
        for _ in range(RECORDED):
            function(*arguments())
        assert len(runs) == RECORDED
        for _ in range(2):
            given_, again = (each := arguments()), copied(each)
            assert_equal(function(*given_), function.__wrapped__(*again))
            assert_equal(given_, again)
        assert len(runs) == RECORDED


KINDS = st.tuples(
    st.sampled_from([torch.float32, torch.float64]), st.integers(1, 40), st.integers(1, 3), st.integers(0, 4)
)


@given(calls=st.lists(st.tuples(KINDS, st.sampled_from([0.5, 2.0])), min_size=1, max_size=12))
def test_calls_of_several_kinds_keep_apart(
    calls: list[tuple[tuple[torch.dtype, int, int, int], float]],
) -> None:
    """Kinds differ in dtype, size, stride, alignment and other arguments."""
    scaled = replayed()(_scaled)
    for (dtype, size, stride, offset), factor in calls * REPEATED:
        x = torch.randn(offset + size * stride).to(device(), dtype)[offset::stride][:size]
        assert torch.equal(scaled(x, factor), x * factor)


def test_numbers_that_are_equal_may_be_of_two_kinds() -> None:
    def kind_of(x: Tensor, number: float) -> Tensor:
        return x.new_full((), 1 if type(number) is int else 2)

    function = replayed()(kind_of)
    for _ in range(REPEATED):
        assert [function(draw(1), number).item() for number in (1, 1.0, True)] == [1, 2, 2]


def test_a_function_that_reads_a_value_runs_each_time() -> None:
    scaled = replayed()(lambda x, factor: _scaled(x, x[0].item()))
    with counted(scaled) as runs:
        for count in range(1, REPEATED + 2):
            x = draw(5)
            assert torch.equal(scaled(x, 2.0), x * x[0].item())
            assert len(runs) == count


def test_a_function_of_a_tensor_that_is_no_argument_runs_each_time() -> None:
    other = draw(5)
    added = replayed()(lambda x: _scaled(x, 1.0) + other)
    for _ in range(REPEATED + 1):
        x, other = draw(5), draw(5)
        assert torch.equal(added(x), x + other)


def test_one_tensor_for_two_arguments() -> None:
    added = replayed()(lambda a, b: _scaled(a, 1.0) + b)
    for _ in range(REPEATED + 1):
        x, y = draw(5), draw(5)
        assert torch.equal(added(x, x), 2 * x)
        assert torch.equal(added(x, y), x + y)


def test_an_argument_may_be_a_result() -> None:
    same = replayed()(lambda x: (x, x[:], _scaled(x, 1.0)))
    for _ in range(REPEATED + 1):
        x = draw(5)
        assert same(x)[0] is x
        assert_equal(same(x), (x, x, x))


def test_settings_are_a_part_of_the_kind() -> None:
    factor = 1.0
    scaled = replayed(lambda: factor)(lambda x: _scaled(x, factor))
    for factor in (*(1.0, 2.0) * REPEATED, 3.0):
        x = draw(5)
        assert torch.equal(scaled(x), x * factor)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_a_search_follows_the_precision(precision: str) -> None:
    """Its launches in the exact mode are others."""
    x, codebook = 100 + draw(1, 40, 4), 100 + draw(1, 30, 4)
    expected = {}
    for mode in ("highest", precision) * REPEATED:
        torch.set_float32_matmul_precision(mode)
        plain, actual = nearest.nearest_code.__wrapped__(x, codebook), nearest.nearest_code(x, codebook)
        expected.setdefault(mode, plain)
        assert_equal(actual, expected[mode])


def test_a_mode_sees_what_runs() -> None:
    """Where PyTorch watches operations, nothing is repeated behind its back."""

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    names: list[str] = []
    double = replayed()(lambda x: _scaled(x, 1.0) + x)
    with counted(double) as runs:
        for _ in range(REPEATED):
            double(draw(5))
        x = draw(5)
        with Names():
            double(x)
        assert len(runs) == RECORDED + 1
        assert "add" in names


def test_replay_can_be_switched_off() -> None:
    scaled = replayed()(_scaled)
    with counted(scaled) as runs:
        for _ in range(REPEATED):
            scaled(draw(5), 2.0)
        with replay.without_replay():
            scaled(draw(5), 2.0)
        scaled(draw(5), 2.0)
        assert len(runs) == RECORDED + 1


def test_a_repeated_call_computes_without_gradients() -> None:
    double = replayed()(lambda x: x + x)
    for _ in range(REPEATED + 1):
        assert not double(draw(5).requires_grad_()).requires_grad


def test_recording_keeps_no_tensor_alive() -> None:
    double = replayed()(lambda x: _scaled(x, 2.0))
    for _ in range(REPEATED + 1):
        x = draw(5)
        result, given_ = weakref.ref(double(x)), weakref.ref(x)
        del x
        gc.collect()
        assert given_() is None
        assert result() is None


def test_a_call_that_allocates_much_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_MEMORY", 4 * 64)
    scaled = replayed()(_scaled)
    with counted(scaled) as runs:
        for size in (64, 65):
            for _ in range(REPEATED + 1):
                x = draw(size)
                assert torch.equal(scaled(x, 2.0), x * 2.0)
        assert len(runs) == RECORDED + REPEATED + 1


def test_the_less_recent_kinds_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "KEPT", 4)
    scaled = replayed()(_scaled)
    with counted(scaled) as runs:
        for factor in (1.0, 2.0, 3.0, 4.0):
            for _ in range(REPEATED):
                scaled(draw(5), factor)
        scaled(draw(5), 1.0)
        scaled(draw(5), 5.0)  # the fifth kind: the recent two of the other four are kept, one and four
        runs.clear()
        for factor in (1.0, 4.0):
            scaled(draw(5), factor)
        assert not runs
        for factor in (2.0, 3.0):
            scaled(draw(5), factor)
        assert len(runs) == 2


def test_threads_share_what_is_recorded() -> None:
    scaled = replayed()(torch.mul)  # the interpreter runs one kernel at a time
    wrong: list[Tensor] = []

    def run() -> None:
        for size in [*range(1, 9)] * 5:
            x = draw(size)
            result = scaled(x, 2.0)
            if not torch.equal(result, x * 2.0):
                wrong.append(result)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_error_is_raised_each_time() -> None:
    for _ in range(REPEATED + 1):
        with pytest.raises(TypeError, match="float64"):
            soft.soft_codes(draw(3, 2).double(), draw(4, 2), draw(4), draw(4, 2), torch.ones(()), None)


def test_every_launch_can_be_recorded() -> None:
    """A kernel without `launched` would be left out of what is repeated."""
    found = []
    for path in sorted(Path(kernels.__path__[0]).rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        subscripts = [call.func for call in calls if isinstance(call.func, ast.Subscript)]
        names = [each.value.id for each in subscripts if isinstance(each.value, ast.Name)]
        if names:
            place = path.relative_to(kernels.__path__[0]).with_suffix("")
            module = importlib.import_module(".".join(("quantizers.kernels", *place.parts)))
            kinds = [getattr(module, name, None) for name in names]
            found += [each for each in kinds if each is not None]
    assert len(found) > 25
    assert all(isinstance(each, Launched) for each in found), found
