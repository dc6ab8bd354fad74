"""Names, near misses, and the metrics of a codebook's use."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quantizers
from quantizers import metrics
from quantizers.core.registry import _BUILDERS


def test_names() -> None:
    assert set(quantizers.available()) >= {"vq", "ema_vq", "simvq", "rotation_vq", "fsq", "gumbel", "none"}
    assert list(quantizers.available()) == sorted(quantizers.available())


@pytest.mark.parametrize("name", quantizers.available())
def test_one_line_of_configuration_builds_them_all(name: str) -> None:
    quantizer = quantizers.create(name, dim=6, codebook_size=64, channel_dim=1)
    assert quantizer(torch.randn(2, 6, 4, 4)).quantized.shape == (2, 6, 4, 4)


@pytest.mark.parametrize(
    ("wrong", "near"), [("sim_vq", "simvq"), ("VQ", "vq"), ("ema", "ema_vq"), ("rotation", "rotation_vq")]
)
def test_unknown_names_answer_with_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no quantizer is named {wrong!r}; did you mean .*{near!r}") as error:
        quantizers.create(wrong, dim=4, codebook_size=8)
    assert all(name in str(error.value) for name in quantizers.available())


def test_classes_and_partials_are_taken_too() -> None:
    assert isinstance(quantizers.create(quantizers.SimVQ, dim=4, codebook_size=8), quantizers.SimVQ)
    cosine = partial(quantizers.VectorQuantizer, distance="cosine")
    assert quantizers.create(cosine, dim=4, codebook_size=8).distance == "cosine"


def test_parameters_are_those_left_open() -> None:
    assert {"gradient", "code_dim"} <= quantizers.core.registry.parameters("vq")
    assert "gradient" not in quantizers.core.registry.parameters("rotation_vq")
    assert "transform" not in quantizers.core.registry.parameters("affine_vq")
    assert quantizers.core.registry.parameters("no such name") == frozenset()


def test_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantizers.core.registry._BUILDERS", dict(_BUILDERS))
    quantizers.register("cosine_vq", partial(quantizers.VectorQuantizer, distance="cosine"))
    assert "cosine_vq" in quantizers.available()
    assert quantizers.create("cosine_vq", dim=4, codebook_size=8).distance == "cosine"
    with pytest.raises(ValueError, match="'vq' is registered already"):
        quantizers.register("vq", quantizers.VectorQuantizer)


# metrics


@given(counts=st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_metrics_are_their_definitions(counts: list[int]) -> None:
    tensor = torch.tensor(counts)
    total = sum(counts)
    bits = sum(-c / total * math.log2(c / total) for c in counts if c) if total else 0.0
    assert metrics.utilization(tensor) == pytest.approx(sum(c > 0 for c in counts) / len(counts))
    assert metrics.entropy(tensor) == pytest.approx(bits, abs=1e-12)
    assert metrics.perplexity(tensor) == pytest.approx(2**bits)


@given(indices=st.lists(st.integers(-1, 9), max_size=60), split=st.integers(0, 60))
def test_counts_add_and_leave_out_what_has_no_code(indices: list[int], split: int) -> None:
    tensor = torch.tensor(indices, dtype=torch.int64)
    counts = metrics.code_counts(tensor, 10)
    assert counts.tolist() == [indices.count(code) for code in range(10)]
    assert torch.equal(counts, metrics.code_counts(tensor[:split], 10) + metrics.code_counts(tensor[split:], 10))


def test_uniform_use_is_the_most() -> None:
    counts = torch.full((256,), 3)
    assert metrics.entropy(counts) == pytest.approx(8)
    assert metrics.perplexity(counts) == pytest.approx(256)


def test_counting_a_code_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IndexError, match="index 10 is outside a codebook of 10 codes"):
        metrics.code_counts(torch.tensor([3, 10]), 10)
