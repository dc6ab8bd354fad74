"""SimVQ with a basis that is given: it stays, at any width, and the map from it is all that learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from quantizers.codebooks.simvq import SimVQ
from tests.cases import normal

SIZE, CHANNELS = 16, 3
widths = st.sampled_from([1, 2, 3, 7])


def basis(width: int = 7, seed: int = 0) -> Tensor:
    return normal(seed, SIZE, width, dtype=torch.float32)


@given(width=widths, seed=st.integers(0, 99))
def test_codes_are_the_basis_times_the_matrix_and_the_basis_stays(width: int, seed: int) -> None:
    quantizer = quantizers.create("simvq", CHANNELS, basis=basis(width, seed))
    optimizer = torch.optim.AdamW(quantizer.parameters(), lr=0.1, weight_decay=0.5)
    before = quantizer.codebook.detach().clone()
    for step in range(3):
        optimizer.zero_grad()
        quantizer(normal(step, 40, CHANNELS, dtype=torch.float32)).loss.backward()
        optimizer.step()
    assert torch.equal(quantizer.basis, basis(width, seed))
    assert (quantizer.codebook != before).any(-1).all()  # a step moves every code
    torch.testing.assert_close(quantizer.codebook, quantizer.basis @ quantizer.transform.weight.T)


def test_a_basis_of_the_codes_width_is_the_first_codebook() -> None:
    assert torch.equal(quantizers.create("simvq", CHANNELS, basis=basis(CHANNELS)).codebook, basis(CHANNELS))


@given(seed=st.integers(0, 99))
def test_a_matrix_of_another_width_keeps_lengths_on_average(seed: int) -> None:
    """Σ ‖cW‖² over many unit features is about Σ_ij W_ij² / C, a mean of DC squares, of variance 2/(DC)."""
    torch.manual_seed(seed)
    channels, features = 64, nn.functional.normalize(normal(seed, 256, 96, dtype=torch.float32), dim=-1)
    codes = SimVQ(channels, basis=features).codebook.detach()
    # The features' second moments are not quite I/C, which adds as much variance again; six deviations.
    assert abs(float(codes.square().sum(-1).mean()) - 1) < 6 * (4 / (96 * 64)) ** 0.5


@pytest.mark.parametrize("width", [CHANNELS, 7])
@pytest.mark.parametrize("learned", [False, True])
def test_saving_and_loading_needs_no_basis(width: int, learned: bool, tmp_path: Path) -> None:
    quantizer = quantizers.create("simvq", CHANNELS, basis=basis(width), learned_basis=learned)
    arguments = quantizers.configuration(quantizer)["arguments"]
    assert (arguments["basis"], arguments["codebook_size"]) == (None, SIZE)
    assert arguments["basis_dim"] == (None if width == CHANNELS else width)
    quantizers.save(quantizer, tmp_path)
    again = quantizers.load(tmp_path)
    assert torch.equal(again.codebook, quantizer.codebook)
    assert torch.equal(again.basis, basis(width))


def test_reset_parameters_gives_the_basis_again() -> None:
    quantizer = SimVQ(CHANNELS, basis=basis(), learned_basis=True)
    nn.init.zeros_(quantizer.basis)
    quantizer.reset_parameters()
    assert torch.equal(quantizer.basis, basis())


def test_a_module_maps_to_the_codes_width() -> None:
    mlp = nn.Sequential(nn.Linear(7, 8), nn.GELU(), nn.Linear(8, CHANNELS))
    quantizer = SimVQ(CHANNELS, basis=basis(), transform=mlp)
    assert torch.equal(quantizer.codebook, mlp(basis()))
    with pytest.raises(ValueError, match=r"transform returned shape \(16, 8\), expected \(16, 3\)"):
        _ = SimVQ(CHANNELS, basis=basis(), transform=nn.Linear(7, 8)).codebook


def test_codes_of_another_width_cannot_be_set() -> None:
    quantizer = SimVQ(CHANNELS, basis=basis())
    with pytest.raises(ValueError, match="transform is WideMatrix, which has no method to_identity"):
        quantizer.set_codebook(basis(CHANNELS))
    with pytest.raises(ValueError, match="transform is WideMatrix, which has no method to_identity"):
        quantizer.initialize_from(basis(CHANNELS))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"basis": basis(), "basis_dim": 5}, ValueError, r"basis has shape \(16, 7\), expected \(16, 5\)"),
        ({"basis": basis(), "codebook_size": 5}, ValueError, "codebook_size is 5, but basis has 16 rows"),
        ({"basis": basis() / 0}, ValueError, "basis contains values that are not finite"),
        ({"basis": basis().long()}, TypeError, "basis has dtype torch.int64, expected a floating dtype"),
        ({"basis": basis()[0]}, ValueError, r"basis has shape \(7,\), expected \[K, C\]"),
        (
            {"basis": basis(), "transform": "diagonal"},
            ValueError,
            "transform is 'diagonal', which maps each channel",
        ),
        ({}, TypeError, "SimVQ is missing codebook_size; it got no basis"),
    ],
)
def test_errors_are_sentences(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quantizers.create("simvq", CHANNELS, **options)
