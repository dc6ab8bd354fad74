"""The chain: training that goes on where it was stopped, codes as bytes and back, bad input in sentences."""

import io
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from benchmarks.chain import (
    checkpoints,
    coding,
    comparison,
    draws,
    formats,
    generative,
    levels,
    loop,
    pictures,
    priors,
    rates,
    reconstruction,
    stages,
)
from benchmarks.chain.priors import Fitted
from benchmarks.chain.reconstruction import Trained
from benchmarks.chain.settings import AUTOENCODING, DIGITS, FITTING, PIXELCNN, TRANSFORMER, Autoencoding, Fitting
from benchmarks.chain.sources import Batch, cut, open_source, to_grey_levels
from benchmarks.cli.app import app
from benchmarks.errors import InputError
from benchmarks.models.pixelcnn import PixelCNN
from benchmarks.models.prior import Prior
from benchmarks.models.transformer import Transformer

ROOT = Path(__file__).resolve().parents[2]
AUTOENCODER = replace(AUTOENCODING[DIGITS], quantizer="vq", codebook_size=8, dim=4, width=4, steps=6, batch_size=8)
PRIOR = replace(FITTING[DIGITS], width=8, layers=1, steps=6, batch_size=8)

# Each has a state of its own: averages, replaced codes and a warm start, a temperature, several codebooks.
VARIANTS = ("ema_vq", "vq:warm_start=True:replace=dead", "gumbel", "residual:num_quantizers=2")


def nothing(step: int, loss: Tensor) -> None:
    """Nobody watches."""


class Stopped(Exception):
    """A process that ends in the middle."""


class StopAt:
    """Ends a training after a step, and keeps the steps that it saw."""

    def __init__(self, last: int | None) -> None:
        self.last = last
        self.seen: list[int] = []

    def __call__(self, step: int, loss: Tensor) -> None:
        self.seen.append(step)
        if step == self.last:
            raise Stopped


def untrained(settings: Autoencoding = AUTOENCODER, seed: int = 0) -> Trained:
    source = open_source(settings)
    torch.manual_seed(seed)
    model = levels.build(settings, source.channels)
    return Trained(settings, source, model.eval(), torch.zeros(settings.steps))


def unfitted(trained: Trained, settings: Fitting = PRIOR, spread: float = 4.0) -> Fitted:
    """Priors whose probabilities are far from equal."""
    made: list[Prior] = []
    for level in range(trained.settings.levels):
        prior = priors.build(settings, trained, level).eval()
        for head in prior.heads if isinstance(prior, PixelCNN) else prior.to_logits:
            linear = head.logits if isinstance(prior, PixelCNN) else head
            torch.nn.init.normal_(linear.weight, std=spread)
        made.append(prior)
    return Fitted(settings, tuple(made), trained.source.prior_side, ())


def random_codes(trained: Trained, count: int, height: int = 8, width: int = 8) -> levels.Codes:
    """Of images of this size; all codes are alike likely."""
    grids = levels.grids(trained.model, height, width)
    return tuple(
        torch.stack([torch.randint(size, (count, *grid)) for size in sizes], -1)
        for grid, sizes in zip(grids, levels.sizes_of(trained.model), strict=True)
    )


def batch_of(trained: Trained, count: int) -> Batch:
    classes = trained.source.classes
    return Batch(torch.zeros(count, 1), None if classes is None else torch.randint(classes, (count,)))


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)


@pytest.mark.parametrize("levels_count", [1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_that_was_stopped_goes_on_as_one_that_was_not(variant: str, levels_count: int, tmp_path: Path):
    settings = replace(AUTOENCODER, quantizer=variant, levels=levels_count)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = reconstruction.fit(settings, tmp_path / "whole", StopAt(None))
    with pytest.raises(Stopped):
        reconstruction.fit(settings, tmp_path / "stopped", StopAt(5))
    torch.rand(7)  # whatever else the next process draws
    steps = StopAt(None)
    resumed = reconstruction.fit(settings, tmp_path / "stopped", steps)
    assert steps.seen == [4, 5, 6]
    assert torch.equal(resumed.losses, whole.losses)
    assert priors.identity(resumed) == priors.identity(whole)
    assert len(set(whole.losses.tolist())) == settings.steps
    again = StopAt(None)
    finished = reconstruction.fit(settings, tmp_path / "stopped", again)
    assert again.seen == [6]
    assert (
        priors.identity(finished)
        == priors.identity(whole)
        == priors.identity(reconstruction.load(tmp_path / "stopped"))
    )


@pytest.mark.parametrize("model", [PIXELCNN, TRANSFORMER])
def test_a_prior_that_was_stopped_goes_on_as_one_that_was_not(model: str, tmp_path: Path):
    settings, trained = replace(PRIOR, model=model), untrained()
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    _prior, whole = priors.fit(settings, trained, 0, tmp_path / "whole", nothing)
    with pytest.raises(Stopped):
        priors.fit(settings, trained, 0, tmp_path / "stopped", StopAt(3))
    prior, resumed = priors.fit(settings, trained, 0, tmp_path / "stopped", nothing)
    assert torch.equal(resumed, whole)
    assert checkpoints.digest(prior.state_dict()) == checkpoints.digest(_prior.state_dict())
    assert not prior.training


def test_a_training_leaves_torchs_random_numbers_as_they_were(tmp_path: Path):
    before = torch.get_rng_state()
    reconstruction.fit(replace(AUTOENCODER, quantizer="gumbel"), tmp_path, nothing)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_or_one_of_other_settings_is_trained_anew(damage: bytes | None, tmp_path: Path):
    whole = reconstruction.fit(AUTOENCODER, tmp_path, nothing)
    path = tmp_path / reconstruction.CHECKPOINT
    if damage is None:
        reconstruction.fit(replace(AUTOENCODER, seed=1), tmp_path, nothing)
    else:
        path.write_bytes(damage or path.read_bytes()[:-100])
    steps = StopAt(None)
    again = reconstruction.fit(AUTOENCODER, tmp_path, steps)
    assert steps.seen == list(range(1, 7))
    assert torch.equal(again.losses, whole.losses)


@pytest.mark.slow
def test_a_killed_command_goes_on_with_the_same_result(tmp_path: Path):
    words = ["reconstruct", "--steps=200", "--codebook-size=8", "--out"]
    path = tmp_path / "killed" / reconstruction.CHECKPOINT
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # with others sums are rounded in another way
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *words, str(path.parent)], cwd=ROOT, env={**os.environ, **threads}
    )
    try:
        until = time.monotonic() + 60
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    stored = checkpoints.load(path)
    assert stored is not None
    assert 0 < stored["step"] < 200
    for name in ("killed", "whole"):
        assert run(*words, str(tmp_path / name)).exit_code == 0
    killed, whole = (reconstruction.load(tmp_path / name) for name in ("killed", "whole"))
    assert torch.equal(killed.losses[: stored["step"]], stored["losses"][: stored["step"]])
    assert torch.equal(killed.losses, whole.losses)
    assert priors.identity(killed) == priors.identity(whole)


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


coded = st.fixed_dictionaries(
    {
        "variant": st.sampled_from(["vq", "residual:num_quantizers=3", "fsq"]),
        "levels": st.sampled_from([1, 2]),
        "model": st.sampled_from([PIXELCNN, TRANSFORMER]),
        "count": st.integers(1, 5),
        "width": st.sampled_from([4, 8]),
        "seed": st.integers(0, 2**16),
    }
)


@given(coded)
def test_codes_and_labels_come_back_from_their_bytes(drawn: dict[str, Any]):
    torch.manual_seed(drawn["seed"])
    settings = replace(AUTOENCODER, quantizer=drawn["variant"], levels=drawn["levels"])
    trained = untrained(settings)
    fitted = unfitted(trained, replace(PRIOR, model=drawn["model"]))
    codes, batch = random_codes(trained, drawn["count"], 4, drawn["width"]), batch_of(trained, drawn["count"])
    data = coding.write(fitted, codes, batch, 10, nothing)
    decoded = coding.read(data, fitted, 10, "cpu", nothing)
    assert decoded.labels is not None
    assert torch.equal(decoded.labels, batch.labels)
    assert len(decoded.codes) == len(codes)
    for one, other in zip(decoded.codes, codes, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("model", [PIXELCNN, TRANSFORMER])
@pytest.mark.parametrize("levels_count", [1, 2])
def test_the_bytes_are_as_many_as_the_priors_bits_say(model: str, levels_count: int):
    """Within 0.5 %, the least that is asked; one payload's last words, 64 bits, are less than 0.2 % here."""
    trained = untrained(replace(AUTOENCODER, levels=levels_count))
    fitted = unfitted(trained, replace(PRIOR, model=model), spread=1.0)
    count = 1000
    codes, batch = random_codes(trained, count), batch_of(trained, count)
    data = coding.write(fitted, codes, batch, 10, nothing)
    expected = sum(priors.bits(fitted, codes, batch))
    assert expected > 32_000
    assert rates.payload_bits(data, levels_count) == pytest.approx(expected, rel=0.005)
    whole = expected + priors.label_bits(batch, 10)
    headers = (1 + levels_count) * (64 + coding.LENGTH) * 8
    assert whole * 0.995 < 8 * len(data) < whole * 1.005 + headers


def test_bits_are_summed_over_parts_of_the_batch():
    trained = untrained(replace(AUTOENCODER, levels=2))
    fitted = unfitted(trained)
    codes, batch = random_codes(trained, 7), batch_of(trained, 7)
    parts = priors.bits(fitted, codes, batch, at_once=3)
    for one, other in zip(parts, priors.bits(fitted, codes, batch, at_once=100), strict=True):
        assert one == pytest.approx(other, rel=7 * 16 * 2**-24)


def test_the_bottoms_bits_depend_on_the_top_and_on_the_label():
    trained = untrained(replace(AUTOENCODER, levels=2))
    fitted, batch = unfitted(trained), batch_of(trained, 3)
    top, bottom = random_codes(trained, 3)
    bits = priors.bits(fitted, (top, bottom), batch)
    assert priors.bits(fitted, ((top + 1) % 8, bottom), batch)[1] != bits[1]
    assert batch.labels is not None
    others = priors.bits(fitted, (top, bottom), Batch(batch.images, (batch.labels + 1) % 10))
    assert others[0] != bits[0]
    assert others[1] != bits[1]


def test_codes_that_a_prior_does_not_have_are_named():
    trained = untrained()
    fitted, batch = unfitted(trained), batch_of(trained, 2)
    for code in (-1, 8):
        (codes,) = random_codes(trained, 2)
        codes[1, 2, 3, 0] = code
        with pytest.raises(InputError, match=rf"codes hold {code}.*expected 0 to 7"):
            coding.write(fitted, (codes,), batch, 10, nothing)


def test_bytes_that_are_no_file_of_these_checkpoints_are_named():
    trained = untrained()
    fitted = unfitted(trained)
    data = coding.write(fitted, random_codes(trained, 4), batch_of(trained, 4), 10, nothing)
    flipped = bytearray(data)
    flipped[-3] ^= 4
    torch.manual_seed(1)
    other, larger = unfitted(trained), unfitted(untrained(replace(AUTOENCODER, codebook_size=16)))
    for given_bytes, prior in (
        (b"", fitted),
        (data[:-1], fitted),
        (data + b"\0", fitted),
        (bytes(flipped), fitted),
        (data, other),
        (data, larger),
    ):
        with pytest.raises(InputError, match=r"bytes|stream"):
            coding.read(given_bytes, prior, 10, "cpu", nothing)


def test_what_is_coded_is_counted_and_exact():
    trained = untrained()
    fitted = unfitted(trained, spread=0.5)
    result = rates.code(trained, fitted, rates.to_code(trained, fitted), device="cpu", on_step=nothing)
    by_name = {rate.name: rate for rate in result.rates}
    assert result.exact
    assert result.pixels == 297 * 64
    assert by_name["raw indices"].bits == 297 * 16 * 3
    assert by_name["prior, coded"].bits == 8 * len(result.data)
    assert all(rate.bits_per_pixel == rate.bits / result.pixels for rate in result.rates)
    assert abs(result.overhead) < 0.005
    assert by_name["PNG"].psnr_db == math.inf


@pytest.mark.parametrize("part", ["codes", "labels"])
def test_what_is_not_decoded_as_it_was_is_not_called_exact(part: str, monkeypatch: pytest.MonkeyPatch):
    """Also where the images are equal: here all are."""
    trained = untrained()
    fitted = unfitted(trained)
    batch = rates.to_code(trained, fitted)
    read = coding.read

    def wrong(*arguments: Any) -> coding.Decoded:
        decoded = read(*arguments)
        (decoded.codes[0][-1, -1] if part == "codes" else decoded.labels)[-1] ^= 1
        return decoded

    monkeypatch.setattr(levels, "decode", lambda model, codes: torch.zeros(297, 1, 8, 8))
    assert rates.code(trained, fitted, batch, device="cpu", on_step=nothing).exact
    monkeypatch.setattr(coding, "read", wrong)
    assert not rates.code(trained, fitted, batch, device="cpu", on_step=nothing).exact


@given(st.integers(1, 12), st.sampled_from([1, 3]), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**16))
def test_a_sheet_has_every_pixel_and_a_lossless_file_keeps_it(
    count: int, channels: int, height: int, width: int, seed: int
):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, channels, height, width), generator=generator, dtype=torch.uint8)
    sheet = formats.sheet(images)
    columns = sheet.shape[1] // width
    for i in range(count):
        top, left = i // columns * height, i % columns * width
        assert torch.equal(sheet[top : top + height, left : left + width].permute(2, 0, 1), images[i])
    assert sheet.numel() == images.numel()
    with Image.open(io.BytesIO(formats._encode(sheet, "PNG"))) as opened:
        pixels = torch.tensor(list(opened.tobytes()), dtype=torch.uint8)
    assert torch.equal(pixels, sheet.flatten())


@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
def test_the_nearest_quality_is_the_nearest(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(formats.QUALITIES, name, range(10, 100, 20))
    images = open_source(AUTOENCODER).held_out().images[:64]
    images = ((images + 1) * 127.5).round().to(torch.uint8)
    files = [formats._lossy(name, formats.sheet(images), quality) for quality in range(10, 100, 20)]
    for file in files:
        assert formats.nearest_quality(name, images, file.psnr_db + 0.01) == file


def test_a_picture_has_its_images_where_they_belong(tmp_path: Path):
    images = torch.rand(3, 3, 100, 90) * 2 - 1
    pictures.write(tmp_path / "p.png", [pictures.Strip("name", images[:1]), pictures.Strip("", images[1:])])
    with Image.open(tmp_path / "p.png") as opened:
        drawn = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)
    for image, top, left in zip(to_grey_levels(images), (0, 106, 106), (0, 0, 96), strict=True):
        left += pictures.LABELS
        assert torch.equal(drawn[:, top : top + 100, left : left + 90], image)
    assert (drawn[:, :, : pictures.LABELS] < 128).any()  # the name
    ink = pictures.canvas(torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2))
    assert ink[0, 0].tolist() == [255] * 3
    assert ink[0, pictures.CELL].tolist() == [0] * 3


def test_tiles_are_cut_in_the_order_of_reading():
    images = torch.arange(2 * 3 * 5 * 7).view(2, 3, 5, 7)
    tiles = cut(images, 2)
    expected = [images[b, :, i : i + 2, j : j + 2] for b in (0, 1) for i in (0, 2) for j in (0, 2, 4)]
    assert torch.equal(tiles, torch.stack(expected))


def test_samples_are_of_the_class_that_stands_above_them():
    """A prior that knows nothing but the class: each column of the picture has codes of its own."""
    trained = untrained()
    fitted = unfitted(trained)
    labels = draws.grid_labels(trained, 2)
    assert labels is not None
    assert labels.tolist() == [*range(10), *range(10)]
    sharp = draws.Filters(temperature=0)
    images = draws.draw(trained, fitted, labels, 20, filters=sharp, seed=0, device="cpu")
    assert images.shape == (20, 1, 8, 8)
    assert torch.equal(images[:10], images[10:])
    assert len(images[:10].unique(dim=0)) > 1


def test_the_comparison_knows_held_out_digits_and_random_codes_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    trained = untrained()
    latents = generative.latent_samples(tmp_path, 1, 0)
    monkeypatch.setattr(generative, "compare", None)  # the second time they come from the disk
    stored = generative.latent_samples(tmp_path, 1, 0)
    assert all(torch.equal(stored[name].images, latents[name].images) for name in latents)
    rows = generative.rows(stored, trained, unfitted(trained), seed=0, device="cpu")
    found = {row.name: row.recognised for row in rows}
    assert found.pop("data") > 0.9
    for name in generative.TEMPERATURES:
        assert found.pop(name) < 0.5
    assert set(found.values()) == {None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished run: an autoencoder and its prior."""
    out = tmp_path_factory.mktemp("run")
    trained = reconstruction.fit(AUTOENCODER, out, nothing)
    priors.fit(PRIOR, trained, 0, out, nothing)
    return out


def copied(folder: Path, to: Path) -> Path:
    for path in folder.glob("*.pt"):
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_the_links_are_commands_of_their_own(tmp_path: Path):
    out = str(tmp_path)
    for words in (
        ["reconstruct", "--steps=3", "--codebook-size=8", "--quantizer=simvq", "--out", out],
        ["prior", out, "--model=transformer", "--steps=2", "--width=8"],
        ["sample", out, "--rows=1", "--temperature=0.8", "--top-k=5", "--top-p=0.9"],
        ["code", out],
    ):
        result = run(*words)
        assert result.exit_code == 0, result.output
    assert "equal those encoded" in result.output.replace("\n", " ")
    numbers = json.loads((tmp_path / "code.json").read_text())
    assert numbers["file_bytes"] == (tmp_path / stages.CODED).stat().st_size
    trained = reconstruction.load(tmp_path)
    fitted = priors.load(tmp_path, trained)
    assert isinstance(fitted.priors[0], Transformer)
    decoded = coding.read((tmp_path / stages.CODED).read_bytes(), fitted, 10, "cpu", nothing)
    assert torch.equal(decoded.codes[0], levels.encode(trained.model, trained.source.held_out().images)[0])
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size[0] > 10 * 8


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
def test_the_chain_runs_from_end_to_end_and_again_from_its_checkpoints(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in formats.QUALITIES:
        monkeypatch.setitem(formats.QUALITIES, name, range(10, 90, 20))
    for name in ("REPEATS", "ROWS"):
        monkeypatch.setattr(comparison, name, 1)
    words = ["chain", "--share=0.001", "--images", str(photographs), "--out", str(tmp_path)]
    first = run(*words)
    assert first.exit_code == 0, first.output
    record = json.loads((tmp_path / "chain.json").read_text())
    for part in record["parts"]:
        assert part["coding"]["exact"]
        assert [rate["name"] for rate in part["coding"]["rates"]][:5] == [
            "raw indices",
            "static coder",
            "prior, cross entropy",
            "prior, coded",
            "PNG",
        ]
    text = (tmp_path / "chain.md").read_text()
    for name in text.split("](")[1:]:
        assert (tmp_path / name.split(")")[0]).is_file()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    assert len(before) == 3 + 4 + 1 + 2 * 4 + 1
    assert run(*words).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = json.loads((tmp_path / "chain.json").read_text())
    assert again["parts"] == record["parts"]
    assert again["samples"] == record["samples"]
    assert [each["name"] for each in record["comparisons"]] == ["digits", "photographs"]
    rows = [[prior["name"] for prior in each["priors"]] for each in record["comparisons"]]
    assert rows == [
        ["PixelCNN", "raster", "masked", "next-scale", *guided] for guided in (["next-scale, guidance 1"], [])
    ]
    assert again["captions"] == record["captions"]
    assert "Images and their captions" in text
    assert [each["scales"] for each in again["comparisons"]] == [each["scales"] for each in record["comparisons"]]


def test_without_the_coder_it_is_named_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "constriction", None)
    monkeypatch.setattr(reconstruction, "fit", None)
    assert "quantizers-torch[codec]" in refusal("chain", "--out", str(tmp_path))
    assert "quantizers-torch[codec]" in refusal("code", str(tmp_path))


def test_an_interrupted_command_says_how_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reconstruction, "fit", interrupted)
    for words in (["reconstruct"], ["chain"]):
        result = run(*words, "--out", str(tmp_path))
        assert result.exit_code == 130
        assert "resume from the last checkpoint" in result.output


@pytest.fixture
def photographs(request: pytest.FixtureRequest) -> Path:
    """The folder of small pictures."""
    folder: Path = request.getfixturevalue("pictures")
    return folder


def refusal(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_folders_and_checkpoints_that_cannot_be_used_are_named(folder: Path, tmp_path: Path):
    assert "`python -m benchmarks reconstruct` to create it" in refusal("prior", str(tmp_path))
    copied(folder, tmp_path)
    (tmp_path / "prior-0.pt").unlink()
    assert "`python -m benchmarks prior` to create it" in refusal("sample", str(tmp_path))
    path = copied(folder, tmp_path) / reconstruction.CHECKPOINT
    content = checkpoints.load(path)
    assert content is not None
    checkpoints.save(path, {**content, "step": 3})
    assert "at step 3 of 6" in refusal("code", str(tmp_path))
    wider = {**content["settings"], "width": 8}
    checkpoints.save(path, {**content, "settings": wider})
    assert "other shapes than its settings say: size mismatch" in refusal("code", str(tmp_path))
    checkpoints.save(path, {**content, "settings": {**content["settings"], "data_described": {}}})
    assert "other images" in refusal("code", str(tmp_path))
    path.write_bytes(b"no checkpoint")
    assert "cannot be read as a checkpoint" in refusal("code", str(tmp_path))
    reconstruction.fit(replace(AUTOENCODER, seed=1), tmp_path, nothing)
    assert "codes of another autoencoder" in refusal("sample", str(tmp_path))


def test_options_that_cannot_be_are_named(folder: Path, tmp_path: Path, photographs: Path):
    out = str(tmp_path / "out")
    small = tmp_path / "small"
    small.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 16)).save(small / name)
    assert "got 'faces'; expected digits or photographs" in refusal("reconstruct", "--data=faces", "--out", out)
    assert "the digits are scikit-learn's" in refusal("reconstruct", "--images", str(photographs), "--out", out)
    on_photographs = ("reconstruct", "--data=photographs", "--out", out)
    assert "smaller than 32×32 pixels" in refusal(*on_photographs, "--images", str(small))
    assert "not a folder" in refusal("chain", "--images", str(small / "a.png"), "--out", out)
    assert "no codes" in refusal("reconstruct", "--quantizer=none", "--out", out)
    assert "--device: 'nowhere'" in refusal("reconstruct", "--device=nowhere", "--out", out)
    assert "got 'lstm'; expected pixelcnn or transformer" in refusal("prior", str(folder), "--model=lstm")
    assert "width is 10, expected a multiple" in refusal("prior", str(folder), "--model=transformer", "--width=10")
    for option, words in (
        ("--temperature=-1", "--temperature: got -1"),
        ("--top-k=0", "--top-k: got 0"),
        ("--top-p=2", "--top-p: got 2"),
    ):
        assert words in refusal("sample", str(folder), option)
