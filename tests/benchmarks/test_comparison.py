"""Four priors compared: what is trained resumes, what is counted is what there is, bad input in sentences."""

import ast
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

import quantizers
from benchmarks.chain import (
    candidates,
    checkpoints,
    comparison,
    comparison_sheets,
    comparison_training,
    levels,
    loop,
    multiscale,
    pictures,
    priors,
    rates,
    reconstruction,
)
from benchmarks.chain import run as chain
from benchmarks.chain.candidates import Candidate
from benchmarks.chain.comparison_settings import COMPARING, Comparing, with_scales
from benchmarks.chain.draws import Filters
from benchmarks.chain.multiscale import MultiScaleTrained
from benchmarks.chain.priors import Fitted
from benchmarks.chain.progress import Bars
from benchmarks.chain.reconstruction import Trained
from benchmarks.chain.scale_usage import scale_usage
from benchmarks.chain.settings import AUTOENCODING, DIGITS, FITTING, PHOTOGRAPHS, Autoencoding
from benchmarks.chain.sources import Batch, open_source
from benchmarks.errors import InputError
from benchmarks.models.multiscale_vqvae import MultiScaleVQVAE

STEPS = 6
SMALL = {"codebook_size": 8, "dim": 4, "width": 4, "steps": STEPS, "batch_size": 8}
FLAT = replace(AUTOENCODING[DIGITS], quantizer="vq", **SMALL)
PYRAMID = replace(COMPARING[DIGITS].autoencoding, **SMALL)
TINY = {"width": 8, "layers": 1, "steps": STEPS, "batch_size": 8}
SMALL_COMPARING = replace(
    COMPARING[DIGITS],
    autoencoding=PYRAMID,
    sides=(1, 2, 3),
    fitting=replace(COMPARING[DIGITS].fitting, **TINY),
    together=3,
)
PIXELCNN = replace(FITTING[DIGITS], **TINY)


def nothing(step: int, loss: Tensor) -> None:
    """Ignore the progress."""


class Stopped(Exception):
    """A process that ends in the middle."""


def stop_at(last: int) -> loop.OnStep:
    def on_step(step: int, loss: Tensor) -> None:
        if step == last:
            raise Stopped

    return on_step


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)


def model(codebook_size: int = 8, variant: str = "var", **sizes: int) -> MultiScaleVQVAE:
    named = with_scales(variant, (1, 2, 3), 4)
    return MultiScaleVQVAE.named(
        named, dim=4, codebook_size=codebook_size, channels=1, width=4, downsampling=2, **sizes
    ).eval()


def pyramid(comparing: Comparing = SMALL_COMPARING, seed: int = 0) -> MultiScaleTrained:
    """An untrained multi-scale autoencoder of digits."""
    source = open_source(comparing.autoencoding)
    torch.manual_seed(seed)
    return MultiScaleTrained(comparing.autoencoding, source, model(comparing.autoencoding.codebook_size), (4, 4))


def flat(settings: Autoencoding = FLAT) -> Trained:
    source = open_source(settings)
    torch.manual_seed(0)
    return Trained(settings, source, levels.build(settings, source.channels).eval(), torch.zeros(STEPS))


def held_out(count: int) -> Batch:
    batch = open_source(FLAT).held_out()
    assert batch.labels is not None
    return Batch(batch.images[:count], batch.labels[:count])


# The multi-scale autoencoder


@given(
    st.integers(1, 3),
    st.integers(0, 2**16),
    st.sampled_from(["var", "multiscale", "var:quantizer=ema_vq", "var:shared=False"]),
)
def test_tokens_are_those_of_the_quantizer_and_decode_to_the_forwards_images(count: int, seed: int, variant: str):
    torch.manual_seed(seed)
    made, images = model(variant=variant), torch.rand(count, 1, 8, 8) * 2 - 1
    with torch.no_grad():
        out = made(images)
        tokens = made.encode(images)
        assert torch.equal(tokens, out.codes)
        assert torch.equal(tokens, made.quantizer.encode(made.encoder(images)))
        decoded = made.decode(tokens, made.grid(8, 8))
    # Equal up to the order of the sums: the decoder sees the same vectors with other strides.
    torch.testing.assert_close(decoded, out.images)
    assert tokens.shape == (count, 1 + 4 + 9 + 16)


def test_images_of_another_size_have_scales_of_their_own():
    made = model()
    images = torch.rand(2, 1, 16, 8) * 2 - 1
    grid = made.grid(16, 8)
    assert grid == (8, 4)
    assert made.scales(grid)[-1] == grid
    with torch.no_grad():
        tokens = made.encode(images)
        assert made.lengths(grid)[-1] == tokens.shape[1] == sum(map(math.prod, made.scales(grid)))
        assert made.decode(tokens, grid).shape == images.shape


@given(st.integers(0, 2**16))
def test_the_first_scales_decode_without_the_others(seed: int):
    torch.manual_seed(seed)
    made, grid = model(), (4, 4)
    tokens = torch.randint(8, (2, 30))
    lengths = made.lengths(grid)
    assert lengths == [1, 5, 14, 30]
    for length, up_to in zip(lengths, range(1, 5), strict=True):
        with torch.no_grad():
            images = made.decode(tokens[:, :length], grid)
            latents = made.quantizer.latents(tokens, grid, up_to=up_to)
            torch.testing.assert_close(images, made.decoder(latents))


def test_tokens_that_do_not_fit_are_named():
    made = model()
    with pytest.raises(InputError, match=r"tokens have shape \(2, 7\).*L is 1, 5, 14 or 30"):
        made.decode(torch.zeros(2, 7, dtype=torch.int64), (4, 4))
    for token in (-1, 8):
        tokens = torch.zeros(2, 30, dtype=torch.int64)
        tokens[1, 3] = token
        with pytest.raises(InputError, match=rf"tokens of scale 1 hold {token}.*expected 0 to 7"):
            made.decode(tokens, (4, 4))


def test_quantizers_that_are_not_multi_scale_ones_of_maps_are_named():
    with pytest.raises(TypeError, match="VectorQuantizer, expected a multi-scale"):
        MultiScaleVQVAE(quantizers.create("vq", 4, codebook_size=8, channel_dim=1))
    with pytest.raises(ValueError, match="axes=1 and channel_dim=1, expected axes=2"):
        MultiScaleVQVAE(quantizers.create("var", 4, codebook_size=8, channel_dim=1, axes=1))
    with pytest.raises(ValueError, match="channel_dim=-1"):
        MultiScaleVQVAE(quantizers.create("var", 4, codebook_size=8))


# Settings


@given(st.sets(st.integers(1, 20), min_size=1), st.integers(1, 20))
def test_the_scales_of_a_variant_have_the_sides_that_fit(sides: set[int], side: int):
    variant = with_scales("var", sorted(sides), side)
    scales = ast.literal_eval(variant.removeprefix("var:scales="))
    quantizer = quantizers.create("var", 2, codebook_size=2, scales=scales)
    expected = [*(each for each in sorted(sides) if each < side), side]
    assert [tuple(size) for size in quantizer.scale_sizes((side, side))] == [(each, each) for each in expected]


@pytest.mark.parametrize("share", [0.001, 0.5, 2.0])
def test_the_share_counts_for_every_training(share: float):
    for short, whole in zip(chain.plans("folder", 3, share=share), chain.plans("folder", 0), strict=True):
        for one, other in zip(trainings(short), trainings(whole), strict=True):
            assert one.steps == max(1, round(other.steps * share))
            assert one.seed == 3
            if isinstance(one, Autoencoding) and one.data == PHOTOGRAPHS:
                assert one.images == "folder"


def trainings(plan: chain.Plan) -> list[Any]:
    own = [] if plan.comparing is None else [plan.comparing.autoencoding, plan.comparing.fitting]
    return [plan.autoencoding, plan.fitting, *own]


# Usage by scale


@given(
    st.lists(st.lists(st.integers(-1, 7), min_size=30, max_size=30), min_size=1, max_size=5),
)
def test_usage_counts_the_codes_of_each_scale(rows: list[list[int]]):
    found = scale_usage(model().quantizer, torch.tensor(rows), (4, 4))
    start = 0
    for each, side in zip(found, (1, 2, 3, 4), strict=True):
        own = [token for row in rows for token in row[start : start + side**2] if token >= 0]
        start += side**2
        shares = [own.count(code) / len(own) for code in set(own)]
        assert each.size == (side, side)
        assert each.vectors == len(own)
        assert each.used == len(set(own))
        assert each.codes == 8
        assert each.perplexity == pytest.approx(math.prod(share**-share for share in shares))


# Training


def fit_multiscale(folder: Path, on_step: loop.OnStep) -> nn.Module:
    source = open_source(PYRAMID)
    return multiscale.fit(SMALL_COMPARING, source, folder, on_step, device="cpu").model


def fit_masked(folder: Path, on_step: loop.OnStep) -> nn.Module:
    return comparison_training.fit_masked(SMALL_COMPARING, flat(), folder, on_step, device="cpu")[0]


def fit_next_scale(folder: Path, on_step: loop.OnStep) -> nn.Module:
    return comparison_training.fit_next_scale(SMALL_COMPARING, pyramid(), folder, on_step, device="cpu")[0]


@pytest.mark.parametrize("fit", [fit_multiscale, fit_masked, fit_next_scale])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(fit: Any, tmp_path: Path):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = fit(tmp_path / "whole", nothing)
    with pytest.raises(Stopped):
        fit(tmp_path / "stopped", stop_at(3))
    torch.rand(7)  # whatever else the next process draws
    steps: list[int] = []
    resumed = fit(tmp_path / "stopped", lambda step, loss: steps.append(step))
    assert steps == [2, 3, 4, 5, 6]
    assert checkpoints.digest(resumed.state_dict()) == checkpoints.digest(whole.state_dict())
    assert not resumed.training


@pytest.mark.parametrize("fit", [comparison_training.fit_masked, comparison_training.fit_next_scale])
def test_a_prior_of_another_autoencoder_is_trained_anew(fit: Any, tmp_path: Path):
    made = flat if fit is comparison_training.fit_masked else pyramid
    fit(SMALL_COMPARING, made(), tmp_path, nothing, device="cpu")
    other = made()
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    steps: list[int] = []
    fit(SMALL_COMPARING, other, tmp_path, lambda step, loss: steps.append(step), device="cpu")
    assert steps == list(range(1, STEPS + 1))


def test_autoencoders_that_a_prior_cannot_model_are_named(tmp_path: Path):
    several = flat(replace(FLAT, quantizer="residual:num_quantizers=2"))
    with pytest.raises(InputError, match="expected one level with one codebook"):
        comparison_training.fit_masked(SMALL_COMPARING, several, tmp_path, nothing, device="cpu")
    two_levels = flat(replace(FLAT, levels=2))
    with pytest.raises(InputError, match="expected one level with one codebook"):
        comparison_training.fit_masked(SMALL_COMPARING, two_levels, tmp_path, nothing, device="cpu")
    wide = replace(SMALL_COMPARING, fitting=replace(SMALL_COMPARING.fitting, width=10))
    for fit, trained in (
        (comparison_training.fit_masked, flat()),
        (comparison_training.fit_next_scale, pyramid()),
    ):
        with pytest.raises(InputError, match="width is 10, expected a multiple"):
            fit(wide, trained, tmp_path, nothing, device="cpu")
    flat_variant = replace(SMALL_COMPARING, autoencoding=replace(PYRAMID, quantizer="vq"))
    with pytest.raises(InputError, match="scales"):
        multiscale.fit(flat_variant, open_source(PYRAMID), tmp_path, nothing, device="cpu")


# The four priors


def four(trained: Trained, scales: MultiScaleTrained) -> list[Candidate]:
    """Untrained priors."""
    settings = SMALL_COMPARING.fitting
    side = trained.source.prior_side
    made = [
        candidates.raster(name, trained, Fitted(each, (priors.build(each, trained, 0).eval(),), side, ()), "cpu")
        for name, each in (("PixelCNN", PIXELCNN), ("raster", settings))
    ]
    masked = comparison_training.build_masked(SMALL_COMPARING, trained).eval()
    next_scale = comparison_training.build_next_scale(SMALL_COMPARING, scales).eval()
    return [
        *made,
        candidates.masked(masked, SMALL_COMPARING, trained, "cpu"),
        candidates.next_scale(next_scale, scales, "cpu"),
    ]


def test_each_prior_samples_images_of_the_labels_that_are_asked_for():
    torch.manual_seed(0)
    for candidate in four(flat(), pyramid()):
        for module in candidate.prior.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.normal_(module.weight)
        labels = torch.arange(10).repeat(2)
        first = candidate.draw(labels, 20, Filters(top_k=3), 0)
        assert first.shape == (20, 1, 8, 8)
        assert first.abs().max() <= 1
        assert torch.equal(candidate.draw(labels, 20, Filters(top_k=3), 0), first)
        assert not torch.equal(candidate.draw(labels, 20, Filters(top_k=3), 1), first)
        assert not torch.equal(candidate.draw((labels + 1) % 10, 20, Filters(top_k=3), 0), first)


def test_the_passes_are_those_that_a_sample_takes(monkeypatch: pytest.MonkeyPatch):
    """Each pass of a transformer runs its last normalization once."""
    for candidate in four(flat(), pyramid())[1:]:
        passes: list[int] = []
        handle = candidate.prior.norm.register_forward_hook(lambda *given: passes.append(1))  # noqa: B023
        candidate.draw(torch.arange(3), 3, Filters(), 0)
        handle.remove()
        assert len(passes) == candidate.passes


def test_a_masked_prior_takes_no_more_passes_than_there_are_codes():
    trained = flat()
    prior = comparison_training.build_masked(SMALL_COMPARING, trained).eval()
    many = candidates.masked(prior, replace(SMALL_COMPARING, passes=100), trained, "cpu")
    assert many.passes == many.codes == 16
    assert many.draw(torch.arange(2), 2, Filters(), 0).shape == (2, 1, 8, 8)


def test_the_bits_are_summed_over_the_batch_and_only_a_masked_prior_has_none(monkeypatch: pytest.MonkeyPatch):
    batch, found = held_out(7), four(flat(), pyramid())
    assert [candidate.bits is None for candidate in found] == [False, False, True, False]
    for candidate in found:
        if candidate.bits is None:
            continue
        whole = candidate.bits(batch)
        singles = [candidate.bits(Batch(batch.images[i : i + 1], batch.labels[i : i + 1])) for i in range(7)]
        # Sums of at most 30 float32 terms for each of 7 images, in another order.
        assert whole == pytest.approx(sum(singles), rel=7 * 30 * 2**-24)
        monkeypatch.setattr(levels, "AT_ONCE", 3)
        assert candidate.bits(batch) == pytest.approx(whole, rel=7 * 30 * 2**-24)
        monkeypatch.undo()


def test_a_next_scale_prior_of_equal_probabilities_takes_log2_k_bits_for_each_token():
    scales = pyramid()
    prior = comparison_training.build_next_scale(SMALL_COMPARING, scales).eval()
    nn.init.zeros_(prior.to_logits.weight)
    nn.init.zeros_(prior.to_logits.bias)
    candidate = candidates.next_scale(prior, scales, "cpu")
    assert candidate.codes == 30
    assert candidate.bits(held_out(5)) == pytest.approx(5 * 30 * 3)


def test_guided_samples_are_others_and_have_no_bits():
    torch.manual_seed(0)
    comparing = replace(SMALL_COMPARING, guidance=2.0)
    scales = pyramid()
    prior = comparison_training.build_next_scale(comparing, scales).eval()
    for module in prior.modules():
        if isinstance(module, nn.Embedding | nn.Linear):
            nn.init.normal_(module.weight)
    plain, guided = (candidates.next_scale(prior, scales, "cpu", guidance) for guidance in (0.0, 2.0))
    labels = torch.arange(10)
    assert guided.bits is None
    assert plain.bits is not None
    assert guided.name == "next-scale, guidance 2"
    images = [each.draw(labels, 10, Filters(), 0) for each in (plain, guided)]
    assert not torch.equal(*images)


def test_the_measured_seconds_are_the_median_without_the_first(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0, 100, 200, 203, 300, 301, 400, 402])  # the first sampling takes 100 s, the others 3, 1 and 2
    monkeypatch.setattr(comparison.time, "perf_counter", lambda: float(next(clock)))
    counts: list[int] = []

    def draw(labels: Tensor, count: int, filters: Filters, seed: int) -> Tensor:
        assert len(labels) == count
        counts.append(count)
        return torch.zeros(count)

    candidate = replace(four(flat(), pyramid())[0], draw=draw)
    assert comparison.seconds(candidate, flat(), 12) == 2
    assert counts == [12] * 4


# The whole


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Trained, Fitted, Path]:
    trained = reconstruction.fit(FLAT, tmp_path, nothing)
    priors.fit(PIXELCNN, trained, 0, tmp_path, nothing)
    return trained, priors.load(tmp_path, trained), tmp_path


def compare(trained: Trained, fitted: Fitted, folder: Path) -> dict[str, Any]:
    return comparison.run(
        "digits", SMALL_COMPARING, trained, fitted, folder, Bars(Console(quiet=True)), device="cpu"
    )


def test_the_comparison_runs_and_again_from_its_checkpoints(finished: tuple[Trained, Fitted, Path]):
    record = compare(*finished)
    folder = finished[-1]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    assert len(before) == 2 + 4
    again = compare(*finished)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert without_seconds(again) == without_seconds(record)

    names = [each["name"] for each in record["priors"]]
    assert len(set(names)) == 5  # the next-scale prior also with guidance
    for each in record["priors"]:
        assert (each["bits_per_image"] is None) == (each["bits_per_code"] is None)
        if each["bits_per_image"] is not None:
            assert each["bits_per_image"] == pytest.approx(each["bits_per_code"] * each["codes_per_image"])
        assert [sample["temperature"] for sample in each["samples"]] == list(comparison.TEMPERATURES)
        assert all(0 <= sample["recognised"] <= 1 for sample in each["samples"])
        assert min(each["seconds_together"], each["seconds_alone"]) > 0
    assert [each["vectors"] for each in record["scales"]] == [297, 4 * 297, 9 * 297, 16 * 297]

    sheets = comparison_sheets.sheets(record)
    for sheet in sheets:
        assert all(len(row) == len(sheet.headings) for row in sheet.rows)
    assert [row[0] for row in sheets[0].rows] == names

    with Image.open(folder / comparison.PICTURE) as picture:
        rows = 5 * comparison.ROWS + 1
        assert picture.size == (pictures.LABELS + 10 * 86, rows * 86)
        drawn = np.array(picture.convert("L"))[-86:, pictures.LABELS :]
    assert (drawn[:, : 5 * 86] < 255).any()
    assert (drawn[:, 5 * 86 :] == 255).all()  # four scales and the original


def without_seconds(record: Any) -> Any:
    if isinstance(record, dict):
        return {key: without_seconds(item) for key, item in record.items() if not key.startswith("seconds")}
    return [without_seconds(item) for item in record] if isinstance(record, list) else record


def test_the_last_prefix_is_the_whole_copy():
    scales, images = pyramid(), held_out(1).images
    partial = multiscale.prefixes(scales, images)
    assert partial.shape == (4, 1, 8, 8)
    assert torch.equal(partial[-1:], multiscale.decode(scales, multiscale.encode(scales, images)))
    assert len(partial.unique(dim=0)) > 1


def test_photographs_are_compared_on_tiles_and_without_labels(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = str(request.getfixturevalue("pictures"))
    settings = replace(AUTOENCODING[PHOTOGRAPHS], images=images, quantizer="vq", **SMALL)
    comparing = replace(
        COMPARING[PHOTOGRAPHS],
        autoencoding=replace(COMPARING[PHOTOGRAPHS].autoencoding, images=images, **SMALL),
        fitting=SMALL_COMPARING.fitting,
        together=2,
    )
    monkeypatch.setattr(comparison, "ROWS", 1)
    monkeypatch.setattr(comparison, "REPEATS", 1)
    trained = reconstruction.fit(settings, tmp_path, nothing)
    priors.fit(PIXELCNN, trained, 0, tmp_path, nothing)
    fitted = priors.load(tmp_path, trained)
    record = comparison.run(
        "photographs", comparing, trained, fitted, tmp_path, Bars(Console(quiet=True)), device="cpu"
    )
    side = trained.source.prior_side
    assert record["side"] == side
    assert record["images"] == len(rates.tiles(trained.source, side).images)
    assert all(each["samples"] == [] for each in record["priors"])
    assert record["scales"][-1]["size"] == (side // 4, side // 4)
    titles = [sheet.title for sheet in comparison_sheets.sheets(record)]
    assert len(titles) == 2
