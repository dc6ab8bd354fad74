"""What surrounds the forward: first codes, replacement, fitting, regularizers, metrics."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantizers
from quantizers import DeadCodeReplacement, Quantizer
from quantizers.clustering.kmeans import kmeans
from quantizers.clustering.rotations import balanced_rotation, procrustes_rotation
from quantizers.core.gradients import reflection, rotation
from quantizers.monitoring import metrics
from quantizers.monitoring.usage import CodebookUsage
from quantizers.training.sample import VectorSample
from tests.cases import DIM, Case, batch, cases_where
from tests.devices.emulated import DEVICE


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Equal up to what float32 rounds in sums of another order, by PyTorch's own tolerance."""
    assert actual.device == DEVICE
    torch.testing.assert_close(actual.detach().cpu(), expected.detach())


def on_both(quantizer: Quantizer) -> tuple[Quantizer, Quantizer]:
    return quantizer, copy.deepcopy(quantizer).to(DEVICE)


def assert_same_state(device: nn.Module, host: nn.Module) -> None:
    for own, other in zip(device.state_dict().values(), host.state_dict().values(), strict=True):
        assert_same(own, other)


def learns_from_data(case: Case) -> bool:
    """Whether first codes can be taken from data, for each method without options."""
    return not case.is_variation and case.sample.initializes_from_data


@cases_where(learns_from_data)
def test_first_codes(case: Case) -> None:
    host, device = on_both(case.build())
    x = 3 + batch(200)
    for quantizer, vectors in ((host, x), (device, x.to(DEVICE))):
        torch.manual_seed(5)
        quantizer.initialize_from(vectors)
    assert_same_state(device, host)


@cases_where(lambda case: case.foundation and case.has_tables and not case.is_variation)
def test_dead_codes_are_replaced(case: Case) -> None:
    quantizer = case.build().to(DEVICE)
    optimizer = torch.optim.AdamW(parameters) if (parameters := [*quantizer.parameters()]) else None
    replacement = DeadCodeReplacement(quantizer, optimizer, threshold=0.5, decay=0.0)
    out = quantizer((10 + batch(100)).to(DEVICE))
    if out.loss.requires_grad:
        out.loss.backward()
    if optimizer:
        optimizer.step()
    assert replacement.step() > 0


@pytest.mark.parametrize("method", ["nested", "lloyd", "minibatch"])
def test_fit(method: Any) -> None:
    host, device = on_both(quantizers.create("residual", DIM, 8, num_quantizers=2, quantizer="ema_vq"))
    x = batch(400)
    expected = quantizers.fit(host, x, method=method, epochs=3)
    actual = quantizers.fit(device, x, method=method, epochs=3)
    assert actual.inertia == expected.inertia
    assert_same_state(device, host)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_kmeans(distance: Any) -> None:
    x = batch(300)
    draws = torch.Generator().manual_seed
    expected = kmeans(x, 16, distance=distance, generator=draws(1))
    assert_same(kmeans(x.to(DEVICE), 16, distance=distance, generator=draws(1)), expected)


def test_rotations() -> None:
    x = batch(50)
    covariance = x.T @ x
    assert_same(balanced_rotation(covariance.to(DEVICE), [2, 2]), balanced_rotation(covariance, [2, 2]))
    assert_same(procrustes_rotation(covariance.to(DEVICE)), procrustes_rotation(covariance))


@pytest.mark.parametrize("function", [rotation, reflection])
def test_gradients(function: Any) -> None:
    codes, gradients = batch(20, seed=1), []
    for device in (torch.device("cpu"), DEVICE):
        x = batch(20).to(device).requires_grad_()
        function(x, codes.to(device)).square().sum().backward()
        gradients.append(x.grad)
    assert_same(gradients[1], gradients[0])


def test_metrics() -> None:
    indices = torch.arange(50) ** 2 % 11
    expected = metrics.code_counts(indices, 16)
    counts = metrics.code_counts(indices.to(DEVICE), 16)
    assert torch.equal(counts.cpu(), expected)
    for measure in (metrics.utilization, metrics.perplexity, metrics.entropy):
        assert measure(counts) == measure(expected)


def test_the_use_of_codes_over_time() -> None:
    quantizer = quantizers.create("vq", DIM, 16).to(DEVICE)
    usage = CodebookUsage.of(quantizer).to(DEVICE)
    usage.update(quantizer(batch(30).to(DEVICE)).indices)
    found = usage.compute()
    assert int(found["vectors"]) == 30
    assert float(found["possible"]) == 1.0


def test_a_sample_of_vectors() -> None:
    quantizer = quantizers.create("vq", DIM, 16).to(DEVICE)
    sample = VectorSample(quantizer, 20)
    for seed in range(3):
        sample.add(batch(15, seed=seed).to(DEVICE), None)
    assert sample.rows().vectors.shape == (20, DIM)


@pytest.mark.parametrize("method", [name for name in quantizers.available() if not Case(name).sample.per_vector])
def test_quantizers_of_maps(method: str) -> None:
    host, device = on_both(quantizers.create(method, DIM, 16))
    x = batch(2, 4, 6)
    for quantizer in (host, device):
        quantizer.eval()
    expected, actual = host(x), device(x.to(DEVICE))
    assert torch.equal(actual.indices.cpu(), expected.indices)
    assert_same(actual.quantized, expected.quantized)
    out = device.train()(x.to(DEVICE).requires_grad_())
    (out.quantized.sum() + out.loss).backward()
