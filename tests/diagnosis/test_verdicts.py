"""Each verdict: a case that is built to trip it, its remedy that removes it, and cases that must not trip it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from quantizers import FSQ, LFQ, EMAVectorQuantizer, Quantizer, VectorQuantizer, diagnose
from quantizers.diagnosis.rate import attainable_share
from tests.diagnosis.models import held_out, loss_of, trained
from tests.diagnosis.vectors import drawn, kinds


def test_vq_that_uses_four_of_64_codes_is_told() -> None:
    """The first thing that happens to a newcomer; with the remedy it is gone."""
    model = trained(quantizers.create("vq", 8, codebook_size=64, channel_dim=1))
    report = diagnose(model, held_out(), loss=loss_of)
    (finding,) = report.findings
    assert (finding.kind, finding.severity, finding.where) == ("dead-codes", "problem", "model.quantizer")
    used = report.measures[0].codes_in_use
    assert used is not None
    assert used < 16
    assert f"Only {used} codes are in use of 64" in finding.meaning
    assert finding.code == "replacement = quantizers.DeadCodeReplacement(model, optimizer)"
    healthy = trained(quantizers.create("vq", 8, codebook_size=64, channel_dim=1), replaces=True)
    assert diagnose(healthy, held_out(), loss=loss_of).findings == ()


@pytest.mark.parametrize(
    ("name", "options", "replaces"),
    [
        ("ema_vq", {"codebook_size": 64}, True),
        ("rotation_vq", {"codebook_size": 64}, True),
        ("residual", {"codebook_size": 64, "num_quantizers": 3}, True),
        ("grouped", {"codebook_size": 16}, True),
        ("multiscale", {"codebook_size": 64, "scales": (0.25, 0.5, 1), "axes": 2}, True),
        ("fsq", {"codebook_size": 64}, False),
        ("normalized_fsq", {"codebook_size": 64}, False),
        ("bsq", {"codebook_size": 64}, False),
    ],
)
@pytest.mark.slow
def test_a_healthy_quantizer_gets_no_alarm(name: str, options: dict[str, Any], replaces: bool) -> None:
    model = trained(quantizers.create(name, 8, channel_dim=1, **options), replaces=replaces)
    assert kinds(model, held_out()) == []


sources = st.tuples(
    st.integers(1, 40),  # channels
    st.integers(2, 40),  # codes
    st.floats(0, 2),  # how fast the variances of the channels fall
    st.floats(-3, 3),  # log₁₀ of the scale
    st.floats(-2, 2),  # log₁₀ of the distance from the origin, in scales
    st.integers(0, 2**31),
)


@given(sources)
def test_a_codebook_that_is_fitted_by_k_means_is_healthy(source: tuple[Any, ...]) -> None:
    """On Gaussian vectors of any dimension, covariance, scale and offset; judged on other vectors."""
    dim, size, fall, scale, offset, seed = source
    draws = torch.Generator().manual_seed(seed)
    deviations = torch.arange(1, dim + 1) ** -fall
    x = torch.randn(2 * 30 * (size + dim), dim, generator=draws) * deviations
    x = 10**scale * (x + 10**offset * torch.randn(dim, generator=draws))
    quantizer = VectorQuantizer(dim, size)
    quantizer.initialize_from(x[::2])
    assert [finding.kind for finding in diagnose(quantizer, [x[1::2]]).findings] == []


@given(size=st.integers(2, 500), per_code=st.integers(5, 20), seed=st.integers(0, 2**31))
def test_codes_that_are_drawn_with_equal_probability_are_not_dead(size: int, per_code: int, seed: int) -> None:
    quantizer = VectorQuantizer(1, codebook=torch.arange(float(size))[:, None])
    indices = torch.randint(size, (size * per_code,), generator=torch.Generator().manual_seed(seed))
    report = diagnose(quantizer, [indices[:, None].float()])
    assert not [finding for finding in report.findings if finding.kind in ("dead-codes", "too-few-vectors")]


@pytest.mark.parametrize(("used", "severity"), [(12, "problem"), (13, "problem"), (20, "warning"), (30, None)])
def test_the_thresholds_of_dead_codes(used: int, severity: str | None) -> None:
    """Of 53 codes, below a quarter and below half."""
    quantizer = VectorQuantizer(1, codebook=torch.arange(53.0)[:, None])
    x = (torch.arange(53 * 5) % used)[:, None].float()
    found = [finding for finding in diagnose(quantizer, [x]).findings if finding.kind == "dead-codes"]
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_few_vectors_are_not_taken_for_dead_codes() -> None:
    quantizer = VectorQuantizer(4, 64)
    x = drawn(64 * 5, 4)
    (note,) = [each for each in diagnose(quantizer, [x[:-1]]).findings if each.kind == "too-few-vectors"]
    assert note.severity == "note"
    assert "319 vectors for 64 codes" in note.meaning
    assert "at least 320 vectors" in note.remedy
    assert not kinds(quantizer, [x[:-1]], only="dead-codes")
    assert not kinds(quantizer, [x], only="too-few-vectors")
    assert not kinds(quantizers.create("fsq", 4, 64), [x[:-1]], only="too-few-vectors")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_vectors_that_are_not_finite(value: float) -> None:
    quantizer, x = VectorQuantizer(4, 8), drawn(60, 4)
    mask = torch.arange(60) > 0
    x[:3, 1] = value
    (finding,) = [each for each in diagnose(quantizer, [x]).findings if each.kind == "nan"]
    assert finding.severity == "problem"
    assert finding.meaning.startswith("3 of 60 vectors contain NaN or infinite values")
    report = diagnose(quantizer, [(x, mask)], forward=lambda model, batch: model(*batch))
    assert "2 of 59 vectors" in report.findings[0].meaning
    assert not kinds(quantizer, [x[3:]], only="nan")
    x[:] = value
    assert kinds(quantizer, [x]) == ["nan"]


def test_gradients_that_are_not_finite() -> None:
    model = with_levels(VectorQuantizer(4, 8), 1)
    report = diagnose(model, [drawn(200, 4)], loss=lambda model, x: model(x).quantized.mean() * math.nan)
    finding = report.findings[0]
    assert (finding.kind, finding.severity) == ("nan", "problem")
    assert "The gradient of the loss at the quantizer is NaN" in finding.meaning
    assert "gradients-that-vanish" not in [each.kind for each in report.findings]
    assert report.to_dict()["measures"][0]["gradients"]["without"] is None


def test_an_encoder_that_gives_one_vector() -> None:
    """Up to rounding. Vectors that differ in the fifth digit are not the same."""
    x = 1 + 1e-7 * drawn(60, 4)
    assert kinds(EMAVectorQuantizer(4, 8), [x], only="loss-at-zero")
    assert kinds(EMAVectorQuantizer(4, 8), [torch.zeros(60, 4)], only="loss-at-zero")
    assert not kinds(EMAVectorQuantizer(4, 8), [1 + 1e-5 * drawn(60, 4)], only="loss-at-zero")
    assert not kinds(EMAVectorQuantizer(4, 8), [torch.ones(1, 4)], only="loss-at-zero")


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (lambda x: 100 * x, "times narrower"),
        (lambda x: x / 100, "times wider"),
        (lambda x: x + 5, "spreads of the vectors away from the mean"),
    ],
)
def test_codes_that_are_not_where_the_vectors_are(move: Callable[[Tensor], Tensor], said: str) -> None:
    model = nn.Sequential(nn.Identity(), VectorQuantizer(4, 16))
    batches = [move(drawn(500, 4))]
    (finding,) = [each for each in diagnose(model, batches).findings if each.kind == "spread-and-offset"]
    assert said in finding.meaning
    exec(finding.code, {"quantizers": quantizers, "model": model, "batches": batches})
    assert kinds(model, batches) == []


def test_codes_away_from_the_vectors_do_no_harm_if_others_serve_them() -> None:
    codes = torch.cat([drawn(32, 4), 100 + drawn(4, 4)])
    assert not kinds(VectorQuantizer(4, codebook=codes), [drawn(500, 4)], only="spread-and-offset")


def test_vectors_that_ran_away_from_their_codes() -> None:
    model = nn.Sequential(nn.Identity(), VectorQuantizer(4, 16))
    batches = [drawn(500, 4) + 5]
    (finding,) = [each for each in diagnose(model, batches).findings if each.kind == "growing-commitment"]
    assert finding.severity == "problem"
    assert "times the variance of the vectors" in finding.meaning
    exec(finding.code, {"quantizers": quantizers, "model": model, "batches": batches})
    assert kinds(model, batches) == []


def test_one_code_at_the_mean_has_a_commitment_of_one() -> None:
    x = drawn(500, 4)
    report = diagnose(VectorQuantizer(4, codebook=x.mean(0, keepdim=True)), [x])
    assert report.measures[0].commitment == pytest.approx(1, rel=1e-6)
    assert report.findings == ()


@pytest.mark.parametrize("name", ["gumbel", "ibq", "random_projection", "gaussian_quant"])
def test_codes_that_need_not_lie_close_are_not_judged_by_distance(name: str) -> None:
    found = kinds(quantizers.create(name, 4, 16), [drawn(500, 4) + 5])
    assert not {"growing-commitment", "spread-and-offset", "large-quantization-error"} & set(found)


def test_an_error_that_the_bits_do_not_explain() -> None:
    model = nn.Sequential(nn.Identity(), VectorQuantizer(8, codebook=0.05 * drawn(64, 8, seed=1)))
    batches = [drawn(1000, 8)]
    (finding,) = [each for each in diagnose(model, batches).findings if each.kind == "large-quantization-error"]
    assert "% of the variance of the vectors. 6 bits could bring this down to" in finding.meaning
    exec(finding.code, {"quantizers": quantizers, "model": model, "batches": batches})
    assert kinds(model, batches) == []


@given(dim=st.integers(1, 20), bits=st.floats(0, 30), fall=st.floats(0, 3), seed=st.integers(0, 1000))
def test_what_bits_can_attain(dim: int, bits: float, fall: float, seed: int) -> None:
    """Reverse water-filling, by bisection for the level; 2^(−2R/D) for equal variances."""
    x = drawn(50, dim, seed=seed).double() * torch.arange(1, dim + 1) ** -fall
    variances = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0))).clamp(min=1e-300)
    low, high = 1e-30, float(variances.max())
    for _ in range(300):
        level = math.sqrt(low * high)
        spent = float((variances / level).log2().clamp(min=0).sum()) / 2
        low, high = (level, high) if spent > bits else (low, level)
    expected = float(variances.clamp(max=high).sum() / variances.sum())
    assert attainable_share(x, bits) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    corners = torch.tensor([[1.0, 1.0], [1, -1], [-1, 1], [-1, -1]])
    assert attainable_share(corners, bits) == pytest.approx(2**-bits)


def with_levels(quantizer: Quantizer, scale: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), quantizer)
    nn.init.eye_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    model[0].weight.data *= scale
    return model


def test_channels_that_saturate_or_stay() -> None:
    """And a LayerNorm in front of them, which the remedy names."""
    x = drawn(500, 4)
    far, near = with_levels(FSQ(4, (5, 5, 5, 5)), 100), with_levels(FSQ(4, (5, 5, 5, 5)), 1e-3)
    (saturated,) = [each for each in diagnose(far, [x]).findings if each.kind == "saturated-channels"]
    assert "4 of 4 channels put 95%" in saturated.meaning
    assert saturated.severity == "problem"
    (stuck,) = [each for each in diagnose(near, [x]).findings if each.kind == "saturated-channels"]
    assert "4 of 4 channels stay on one level" in stuck.meaning
    assert saturated.code == stuck.code == "torch.nn.LayerNorm(4)  # before the quantizer"
    for model in (far, near):
        model[0] = nn.Sequential(model[0], nn.LayerNorm(4))
        assert not kinds(model, [x], only="saturated-channels")


def test_one_channel_that_stays_is_a_warning() -> None:
    x = drawn(500, 4) * torch.tensor([1.0, 1.0, 0.0, 1.0])
    (finding,) = [
        each for each in diagnose(FSQ(4, (5, 5, 5, 2)), [x]).findings if each.kind == "saturated-channels"
    ]
    assert finding.severity == "warning"
    assert "1 of 4 channels stay" in finding.meaning


@given(levels=st.lists(st.integers(2, 9), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_levels_that_are_equally_frequent_are_healthy(levels: list[int], seed: int) -> None:
    quantizer, draws = FSQ(len(levels), levels), torch.Generator().manual_seed(seed)
    x = quantizer.decode(torch.randint(quantizer.codebook_size, (400,), generator=draws)).atanh().clamp(-9, 9)
    assert not {"saturated-channels", "constant-bits"} & set(kinds(quantizer, [x]))


def test_bits_that_are_constant() -> None:
    x = drawn(500, 4)
    quantizer = LFQ(4, 16)
    assert not kinds(quantizer, [x], only="constant-bits")
    (finding,) = [
        each
        for each in diagnose(quantizer, [x * torch.tensor([1, 1, 1, 0]) + torch.tensor([0, 0, 0, 1])]).findings
        if each.kind == "constant-bits"
    ]
    assert finding.severity == "warning"
    assert finding.meaning.startswith("1 of 4 bits have one value")
    assert finding.code == "quantizer.entropy_weight = 0.2"
    assert kinds(quantizer, [x + 10], only="constant-bits")


def test_stages_that_add_nothing() -> None:
    """A second stage whose codes are far from every residual; warm_start repairs it."""
    model = nn.Sequential(nn.Identity(), quantizers.create("residual", 4, codebook_size=32, num_quantizers=3))
    batches = [drawn(2000, 4)]
    quantizers.warm_start(model, batches)
    assert kinds(model, batches) == []
    model[1].quantizers[1].set_codebook(10 + drawn(32, 4))
    (finding,) = [each for each in diagnose(model, batches).findings if each.kind == "stages-that-add-nothing"]
    assert finding.where == "model[1], stage 1"
    assert "of the error before it" in finding.meaning
    exec(finding.code, {"quantizers": quantizers, "model": model, "batches": batches})
    assert kinds(model, batches) == []


def test_gradients_that_do_not_pass() -> None:
    """A bound without slope, which a LayerNorm brings back, and a decoder that gets detached vectors."""

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).quantized.square().mean()

    x, model = drawn(200, 4) + 10, with_levels(FSQ(4, (5, 5, 5, 5)), 1)
    finding, *_ = diagnose(model, [x], loss=loss).findings
    assert finding.kind == "gradients-that-vanish"
    assert "The encoder hardly learns." in finding.meaning
    model[0] = nn.Sequential(model[0], nn.LayerNorm(4))
    assert "gradients-that-vanish" not in [each.kind for each in diagnose(model, [x], loss=loss).findings]

    def detached(model: nn.Module, x: Tensor) -> Tensor:
        out = model(x)
        return out.quantized.detach().mean() + out.loss

    report = diagnose(with_levels(VectorQuantizer(4, 8), 1), [x], loss=detached)
    (finding,) = [each for each in report.findings if each.kind == "gradients-that-vanish"]
    assert "no gradient at the quantized vectors" in finding.meaning


def test_the_remedy_for_dead_codes_follows_from_the_quantizer() -> None:
    """Replacement needs a table; elsewhere codes start anew, learn again, or there is a loss on their entropy."""
    x = torch.cat([drawn(500, 4), drawn(500, 4) + 100])
    few = 100 * torch.ones(64, 4) + 1e-3 * drawn(64, 4)
    frozen = VectorQuantizer(4, codebook=torch.cat([few[:63], -few[:1]]), frozen=True)
    remedies = {
        "unfreeze()": frozen,
        "DeadCodeReplacement(model, optimizer)": VectorQuantizer(4, codebook=frozen.codebook.detach()),
        "initialize_from(vectors)": quantizers.create("simvq", 4, 64),
        "levels_for(": FSQ(4, (8, 8)),
        "entropy_weight = 0.2": LFQ(4, 64),
    }
    for code, quantizer in remedies.items():
        far = x.new_ones(400, 4) * 50 + 1e-3 * drawn(400, 4)
        (finding,) = [each for each in diagnose(quantizer, [far]).findings if each.kind == "dead-codes"]
        assert code in finding.code
        if code == "initialize_from(vectors)":
            quantizer.initialize_from(far)
            assert not kinds(quantizer, [far], only="dead-codes")


def test_shared_codebooks_are_judged_together() -> None:
    """One scale may use few codes of them, if another one uses the rest."""
    codes = torch.cat([100 * torch.eye(4)[:2], torch.randn(6, 4)])
    stage = VectorQuantizer(4, codebook=codes)
    quantizer = quantizers.ResidualQuantizer(4, [stage, stage])
    x = codes[torch.arange(100) % 2] + codes[2:][torch.arange(100) % 6]
    report = diagnose(quantizer, [x])
    assert [each.part for each in report.measures] == ["", "stage 0", "stage 1", "shared codebook"]
    assert [each.codes_in_use for each in report.measures] == [None, 2, 6, 8]
    assert "dead-codes" not in [finding.kind for finding in report.findings]
