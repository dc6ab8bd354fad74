"""Options that are one class's own: Gumbel's temperature, SimVQ's map, the first codes, wrong values."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import quantizers
from quantizers import GumbelQuantizer, SimVQ
from quantizers.training.schedules import (
    CosineCommitment,
    CosineDecay,
    CosineTemperature,
    ExponentialTemperature,
    LinearCommitment,
)

LEARNED = ["vq", "ema_vq", "simvq", "affine_vq", "gumbel"]


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("size", [64, 4096])
@pytest.mark.parametrize("dim", [4, 64])
def test_first_codes_have_unit_square_norm_at_any_size(name: str, size: int, dim: int) -> None:
    """‖e‖² has mean 1 and variance 2/D over KD normal numbers; within five standard errors."""
    square = quantizers.create(name, dim=dim, codebook_size=size).codebook.detach().square().sum(-1).mean()
    assert abs(float(square) - 1) < 5 * (2 / dim / size) ** 0.5


@pytest.mark.parametrize("name", ["vq", "rotation_vq", "gumbel"])
def test_set_codebook(name: str) -> None:
    quantizer = quantizers.create(name, dim=3, codebook_size=5)
    codes = torch.randn(5, 3)
    quantizer.set_codebook(codes)
    assert torch.equal(quantizer.codebook, codes)
    with pytest.raises(ValueError, match=r"codebook has shape \(4, 3\), expected \(5, 3\)"):
        quantizer.set_codebook(codes[:4])


@pytest.mark.parametrize("name", ["vq", "rotation_vq", "ema_vq", "simvq", "gumbel"])
@pytest.mark.parametrize("size", [0, -3, 1.5])
def test_codebook_size_is_checked(name: str, size: object) -> None:
    with pytest.raises(ValueError, match=f"codebook_size is {size}, expected an integer of at least 1"):
        quantizers.create(name, dim=4, codebook_size=size)


@pytest.mark.parametrize("name", LEARNED)
def test_one_code_is_enough(name: str) -> None:
    quantizer = quantizers.create(name, dim=4, codebook_size=1)
    for _ in range(2):
        assert (quantizer(torch.randn(7, 4)).indices == 0).all()


@pytest.mark.parametrize("name", LEARNED)
def test_meta_device_and_reset(name: str) -> None:
    with torch.device("meta"):
        quantizer = quantizers.create(name, dim=4, codebook_size=8, code_dim=2)
    quantizer = quantizer.to_empty(device="cpu")
    for module in quantizer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert all(tensor.isfinite().all() for tensor in [*quantizer.parameters(), *quantizer.buffers()])
    assert quantizer(torch.randn(3, 4)).loss.isfinite()


# Gumbel


@pytest.mark.parametrize("schedule", [ExponentialTemperature, CosineTemperature])
def test_schedules_go_from_start_to_end_and_hold(schedule) -> None:  # type: ignore[no-untyped-def]
    quantizer = GumbelQuantizer(4, 8)
    schedule = schedule(quantizer, start=2.0, end=0.5, steps=10)
    seen = [float(quantizer.temperature), *(schedule.step() for _ in range(12))]
    assert seen[0] == 2.0
    assert seen[10:] == pytest.approx([0.5] * 3)
    assert seen == sorted(seen, reverse=True)
    assert float(quantizer.temperature) == pytest.approx(seen[-1])
    # Half way: the geometric mean for the exponential, the arithmetic one for the cosine.
    assert seen[5] == pytest.approx(1.0 if schedule.__class__ is ExponentialTemperature else 1.25)


def test_schedule_goes_on_from_a_checkpoint() -> None:
    quantizer = GumbelQuantizer(4, 8)
    schedule = ExponentialTemperature(quantizer, start=2.0, end=0.5, steps=10)
    for _ in range(4):
        schedule.step()
    restored = GumbelQuantizer(4, 8)
    restored.load_state_dict(quantizer.state_dict())
    assert torch.equal(restored.temperature, quantizer.temperature)
    resumed = ExponentialTemperature(restored, start=2.0, end=0.5, steps=10)
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.step() == schedule.step()
    assert torch.equal(restored.temperature, quantizer.temperature)


@given(temperature=st.sampled_from([0.0, -1.0, float("nan")]))
def test_temperature_is_checked(temperature: float) -> None:
    quantizer = GumbelQuantizer(4, 8)
    with pytest.raises(ValueError, match=r"temperature is .*, expected a number above 0"):
        quantizer.temperature = temperature
    with pytest.raises(ValueError, match="temperatures are"):
        ExponentialTemperature(quantizer, start=1.0, end=temperature, steps=5)
    with pytest.raises(ValueError, match="steps is 0"):
        ExponentialTemperature(quantizer, start=1.0, end=0.5, steps=0)


def test_a_schedule_reaches_the_quantizer_in_a_wrapper_and_nothing_else() -> None:
    """An attribute of a wrapper, or of what has no temperature, would change nothing, without a word."""
    quantizer = GumbelQuantizer(4, 8)
    schedule = ExponentialTemperature(nn.DataParallel(quantizer), start=2.0, end=0.5, steps=2)  # type: ignore[arg-type]
    assert quantizer.temperature == 2.0
    schedule.step()
    assert quantizer.temperature == 1.0
    for other in (quantizers.VectorQuantizer(4, 8), nn.Sequential(quantizer)):
        with pytest.raises(
            ValueError, match=f"quantizer is {type(other).__name__}, expected a quantizer with a temperature"
        ):
            ExponentialTemperature(other, start=2.0, end=0.5, steps=2)  # type: ignore[arg-type]


def test_a_learned_scale_starts_at_one_and_moves_no_index_of_evaluation() -> None:
    quantizer = GumbelQuantizer(4, 8, learned_scale=True).eval()
    plain = GumbelQuantizer(4, 8).eval()
    plain.load_state_dict(quantizer.state_dict(), strict=False)
    x = torch.randn(50, 4)
    for a, b in zip(quantizer(x), plain(x), strict=True):
        assert torch.equal(a, b)
    quantizer.log_scale.data.fill_(3.0)
    assert torch.equal(quantizer(x).indices, plain(x).indices)
    assert quantizer(x).loss > plain(x).loss  # a sharper softmax is farther from uniform
    quantizer.reset_parameters()
    assert quantizer.log_scale == 0


@pytest.mark.parametrize("hard", [False, True])
def test_temperature_may_be_set_between_forward_and_backward(hard: bool) -> None:
    """As by a training loop that counts its step before the backward: the gradient is that of the forward."""
    gumbel = GumbelQuantizer(4, 8, hard=hard)
    gradients = []
    for later in (1.0, 0.25):
        x = torch.ones(5, 4, requires_grad=True)
        torch.manual_seed(0)
        gumbel.temperature = 1.0
        quantized = gumbel(x).quantized
        gumbel.temperature = later
        gradients.append(torch.autograd.grad(quantized.square().sum(), x)[0])
    assert torch.equal(*gradients)


def test_low_temperature_is_nearly_hard() -> None:
    """At τ → 0 the relaxed sample tends to the code of its index."""
    quantizer = GumbelQuantizer(4, 8, temperature=1e-4)
    out = quantizer(torch.randn(50, 4))
    near = (out.quantized - quantizer.codebook[out.indices]).norm(dim=-1) < 1e-3
    assert near.float().mean() > 0.9


def test_gumbel_noise_is_repeatable_and_new_each_step() -> None:
    quantizer = GumbelQuantizer(4, 8)
    x = torch.randn(100, 4)
    torch.manual_seed(1)
    first, second = quantizer(x).indices, quantizer(x).indices
    torch.manual_seed(1)
    assert torch.equal(quantizer(x).indices, first)
    assert not torch.equal(first, second)


def test_unknown_logits_are_named() -> None:
    with pytest.raises(ValueError, match="logits is 'dot', expected 'linear' or 'distance'"):
        GumbelQuantizer(4, 8, logits="dot")


# Commitment


@pytest.mark.parametrize("kind", [LinearCommitment, CosineCommitment])
def test_commitment_warms_up_in_every_quantizer_of_a_module(kind) -> None:  # type: ignore[no-untyped-def]
    module = nn.Sequential(
        nn.Linear(4, 4),
        nn.ModuleList(
            [quantizers.create(name, dim=4, codebook_size=8) for name in ("vq", "ema_vq", "simvq", "gumbel")]
        ),
    )
    schedule = kind(module, start=0.0, end=0.5, steps=10)
    seen = [schedule.step() for _ in range(12)]
    assert kind(module, start=0.0, end=0.5, steps=10).count == 0
    holders = module[1][:3]
    assert [quantizer.commitment_weight for quantizer in holders] == [0.0] * 3
    schedule.load_state_dict({"count": 5})
    assert [quantizer.commitment_weight for quantizer in holders] == pytest.approx([0.25] * 3)
    assert seen[4] == pytest.approx(0.25)
    assert seen[1] == pytest.approx(0.1 if kind is LinearCommitment else 0.25 * (1 - math.cos(math.pi / 5)))
    assert seen[9:] == [0.5] * 3
    assert not hasattr(module[1][3], "commitment_weight")


def test_the_loss_follows_the_commitment_weight() -> None:
    quantizer = quantizers.create("ema_vq", dim=4, codebook_size=8).eval()
    x, losses = torch.randn(20, 4), []
    schedule = LinearCommitment(quantizer, start=0.0, end=1.0, steps=4)
    for _ in range(5):
        losses.append(float(quantizer(x).loss))
        schedule.step()
    assert losses[0] == 0
    assert losses[1:] == pytest.approx([losses[4] * step / 4 for step in range(1, 5)])


def test_wrong_commitment_schedules_are_named() -> None:
    quantizer = quantizers.create("vq", dim=4, codebook_size=8)
    for wrong in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="commitment weights are"):
            LinearCommitment(quantizer, start=0.0, end=wrong, steps=5)
    with pytest.raises(ValueError, match="steps is 0"):
        CosineCommitment(quantizer, start=0.0, end=0.1, steps=0)
    with pytest.raises(ValueError, match="module is a Linear, in which no quantizer has a commitment_weight"):
        LinearCommitment(nn.Linear(2, 2), start=0.0, end=0.1, steps=5)
    assert quantizer.commitment_weight == 0.25


# The decay of moving averages


def test_decay_rises_in_every_average_of_a_module_and_nowhere_else() -> None:
    class Other(nn.Module):
        decay = 0.5

    stages = quantizers.create("residual", dim=4, codebook_size=8, num_quantizers=2, quantizer="ema_vq")
    module = nn.Sequential(Other(), stages, quantizers.create("vq", dim=4, codebook_size=8))
    schedule = CosineDecay(module, start=0.9, end=0.99, steps=4)
    seen = [stages.components[0].decay, *(schedule.step() for _ in range(6))]
    steps = [0.01 + 0.09 * (1 + math.cos(math.pi * count / 4)) / 2 for count in range(5)]
    assert [1 - decay for decay in seen] == pytest.approx([*steps, 0.01, 0.01])
    assert [stage.decay for stage in stages.components] == [0.99] * 2
    assert module[0].decay == 0.5
    resumed = CosineDecay(module, start=0.9, end=0.99, steps=4)
    resumed.load_state_dict({"count": 2})
    assert [stage.decay for stage in stages.components] == [seen[2]] * 2


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_averages_follow_the_current_decay(accumulated: int) -> None:
    """N ← γN + (1 − γ)n with the γ of the step, also where two forwards make one step."""
    quantizer = quantizers.EMAVectorQuantizer(4, 8).accumulate(accumulated)
    schedule = CosineDecay(quantizer, start=0.2, end=1.0, steps=5)
    expected = quantizer.cluster_size.double()
    for _ in range(6):
        x = torch.randn(30 * accumulated, 4)
        chosen = quantizer.encode(x)
        for part in x.chunk(accumulated):
            quantizer(part)
        expected = quantizer.decay * expected + (1 - quantizer.decay) * chosen.bincount(minlength=8)
        torch.testing.assert_close(quantizer.cluster_size.double(), expected, rtol=1e-5, atol=1e-5)
        schedule.step()


def test_wrong_decay_schedules_are_named() -> None:
    quantizer = quantizers.EMAVectorQuantizer(4, 8)
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"decays are 0\.5 and"):
            CosineDecay(quantizer, start=0.5, end=wrong, steps=5)
    with pytest.raises(ValueError, match="steps is 0"):
        CosineDecay(quantizer, start=0.5, end=0.9, steps=0)
    with pytest.raises(ValueError, match="module is a VectorQuantizer, in which no quantizer has a decay"):
        CosineDecay(quantizers.VectorQuantizer(4, 8), start=0.5, end=0.9, steps=5)
    assert quantizer.decay == 0.99


# SimVQ


def test_simvq_starts_as_its_basis_and_saves_it() -> None:
    for transform in ("linear", "diagonal"):
        quantizer = SimVQ(4, 8, transform=transform)
        assert torch.equal(quantizer.codebook, quantizer.basis)
        assert set(quantizer.state_dict()) == {"basis", "transform.weight", "index_format"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_simvq_takes_a_module_of_any_dtype(dtype: torch.dtype) -> None:
    quantizer = SimVQ(4, 8, transform=nn.Linear(4, 4, dtype=dtype))
    assert quantizer.codebook.dtype == torch.float32
    assert quantizer(torch.randn(3, 4)).loss.dtype == torch.float32


def test_simvq_module_that_changes_the_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"transform returned shape \(8, 2\), expected \(8, 4\)"):
        _ = SimVQ(4, 8, transform=nn.Linear(4, 2)).codebook


def test_unknown_choices_are_named() -> None:
    with pytest.raises(ValueError, match="transform is 'full', expected 'linear', 'diagonal', 'affine' or a mod"):
        SimVQ(4, 8, transform="full")
    with pytest.raises(ValueError, match="distance is 'dot', expected 'euclidean', 'cosine' or 'angle'"):
        SimVQ(4, 8, distance="dot")
