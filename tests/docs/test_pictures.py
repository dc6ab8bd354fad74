"""The pictures of the methods: there is one for each, and what they show is what the quantizers compute."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from docs._pictures.__main__ import FOLDER, main
from docs._pictures.drawing import LONGEST_OWN, draw, own_factor
from docs._pictures.planes import HEIGHT, WIDTH, pixels, starts
from docs._pictures.scene import DECODER, Scene, build, compute
from docs._pictures.settings import SETTINGS
from docs._pictures.tints import TINTS, assign_tints
from quantizers.core.registry import _BUILDERS

BUILDERS = {name: getattr(builder, "func", builder) for name, builder in _BUILDERS.items()}
METHODS = [name for name, builder in BUILDERS.items() if builder.__module__.startswith("quantizers.")]
COLUMNS, ROWS = 84, 56


def scene(name: str) -> Scene:
    return compute(name, COLUMNS, ROWS)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_small_picture(name: str) -> None:
    path = FOLDER / f"{name}.png"
    with Image.open(path) as picture:
        assert picture.size == (1620, 1260)
        assert picture.mode == "P"
    assert path.stat().st_size < 80_000


def test_settings_and_pictures_are_those_of_methods() -> None:
    assert set(SETTINGS) <= set(METHODS)
    assert {path.stem for path in FOLDER.glob("*.png")} == set(METHODS)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SystemExit, match="no quantizer is registered as vqq; see"):
        main(["vq", "vqq"])


def test_redrawing_gives_the_committed_picture(tmp_path: Path) -> None:
    """Up to the smoothing of edges and letters, which differs among versions of the libraries that draw."""
    draw(compute("bernoulli"), tmp_path / "again.png")
    committed, again = (
        np.asarray(Image.open(path).convert("RGB"), dtype=float)
        for path in (FOLDER / "bernoulli.png", tmp_path / "again.png")
    )
    assert np.abs(committed - again).mean() < 1


@pytest.mark.parametrize("name", ["nsvq", "gumbel", "simvq"])
def test_a_scene_is_the_same_each_time_and_leaves_the_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, again = scene(name), scene(name)
    assert torch.equal(torch.get_rng_state(), before)
    for field in ("decoder", "own", "cells", "codes", "others", "moves"):
        assert torch.equal(getattr(first, field), getattr(again, field)), field


@pytest.mark.parametrize("name", ["vq", "ema_vq", "simvq", "optvq", "lfq", "residual", "multihead", "none"])
def test_a_straight_through_arrow_is_the_decoders_gradient(name: str) -> None:
    torch.testing.assert_close(scene(name).decoder, DECODER.expand(70, 2))


def test_arrows_of_fsq_shrink_with_the_slope_of_its_bound() -> None:
    slope = 1 - starts().tanh().square()  # five levels: 2 · (1 + 10⁻³) · tanh z, divided by half_i = 2
    torch.testing.assert_close(scene("fsq").decoder, 1.001 * slope * DECODER)


def test_own_loss_of_vq_pulls_to_the_code() -> None:
    """¼ of the mean over two channels of (z − q)² has the gradient ¼ (z − q)."""
    z = starts()
    code = build("vq").eval()(z).quantized.detach()
    torch.testing.assert_close(scene("vq").own, 0.25 * (code - z), atol=1e-6, rtol=1e-4)


def test_cells_are_those_of_the_nearest_codes() -> None:
    drawn = scene("vq")
    assert drawn.cells is not None
    points = pixels(COLUMNS, ROWS)
    assert points[0, 0].tolist() == pytest.approx([-WIDTH * (1 - 1 / COLUMNS), HEIGHT * (1 - 1 / ROWS)])
    nearest = torch.cdist(points.reshape(-1, 2), drawn.codes).argmin(-1)
    assert torch.equal(nearest.reshape(ROWS, COLUMNS), drawn.cells)


def test_a_step_moves_the_chosen_codes_of_vq_and_all_codes_of_simvq() -> None:
    vq, simvq = scene("vq"), scene("simvq")
    chosen = torch.cdist(vq.batch, vq.codes).argmin(-1).unique()
    assert torch.equal(vq.moves.norm(dim=-1).nonzero()[:, 0], chosen)
    assert (simvq.moves.norm(dim=-1) > 0).all()


def test_the_finest_scale_is_the_value_of_the_map() -> None:
    drawn, quantizer = scene("multiscale"), build("multiscale").eval()
    value = quantizer(drawn.starts.reshape(1, 4, 4, 2)).quantized
    torch.testing.assert_close(drawn.scales[:, -1], value.detach().reshape(-1, 2))
    coarsest = drawn.scales[:, 0]  # one vector for the whole map
    torch.testing.assert_close(coarsest, coarsest[:1].expand(16, 2))


def test_values_that_are_no_codes_are_marked() -> None:
    assert len(scene("vq").others) == 0
    assert len(scene("nsvq").others) == len(starts())
    assert 0 < len(scene("bypass").others) < len(starts())


@pytest.mark.parametrize("length", [1e-6, 0.2, 1.0, 40.0])
def test_long_arrows_get_a_visible_length(length: float) -> None:
    own = torch.tensor([[0.0, 0.0], [length, 0.0]])
    assert 0.59 < own_factor(own) * 0.3 * length / LONGEST_OWN < 1.01
    assert own_factor(torch.zeros(3, 2)) == own_factor(torch.zeros(0, 2)) == 0


def test_neighbouring_cells_have_different_tints() -> None:
    cells = torch.tensor([[0, 0, 1], [2, 0, 1], [2, 3, 3], [4, 4, 3]])
    tints = assign_tints(cells)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3), (2, 4), (3, 4)]
    assert all(tints[a] != tints[b] for a, b in pairs)
    assert int(tints.max()) < len(TINTS)
