"""The k nearest codes of a vector: the laws of `candidates`, for every quantizer that chooses the nearest code."""

import pytest
import torch

import quantizers
from quantizers import Quantizer
from quantizers.composite.enclosing import EnclosingQuantizer
from quantizers.core.candidates import CodeCandidates
from tests.cases import CASES, DIM, SIZE, Case, batch, cases_where
from tests.exact import assert_k_nearest


def chooser(quantizer: Quantizer) -> Quantizer:
    """The quantizer that chooses the codes: the innermost of those that are around one another."""
    return chooser(quantizer.quantizer) if isinstance(quantizer, EnclosingQuantizer) else quantizer


def searches(case: Case) -> bool:
    """Whether evaluation chooses the nearest code of a codebook."""
    own = type(chooser(case.sample))._compared is not CodeCandidates._compared
    return own and case.choice in ("nearest", None)


def test_all_that_record_the_choice_of_the_nearest_code_are_among_them() -> None:
    assert {str(case) for case in CASES if case.choice == "nearest"} <= {
        str(case) for case in CASES if searches(case)
    }


every_search = cases_where(searches)
every_other = cases_where(lambda case: not searches(case))


@every_search
def test_the_first_is_the_index_of_encode(case: Case) -> None:
    quantizer, x = case.build(), batch(3, 7)
    indices = quantizer.encode(x)
    for k in (1, 5):
        found = quantizer.candidates(x, k)
        assert torch.equal(found.indices[..., 0], indices)
        assert found.indices.shape == found.squared_distances.shape == (*indices.shape, k)


@every_search
def test_all_of_them_are_all_codes_in_the_order_of_their_distances(case: Case) -> None:
    quantizer, x = case.build(), batch(4)
    size = min(quantizer.codebook_size, 300)
    indices, distances = quantizer.candidates(x, size)
    # Ties that float64 cannot tell apart may round to neighbours in float32.
    assert (distances[..., 1:] >= distances[..., :-1] * (1 - 2.0**-23)).all()
    in_order = indices.sort().values
    assert (in_order.diff() > 0).all()
    if size == quantizer.codebook_size:
        assert torch.equal(in_order, torch.arange(size).expand_as(in_order))


@cases_where(
    lambda case: (
        searches(case)
        and chooser(case.sample) is case.sample
        and case.distance == "euclidean"
        and not case.sample.composed
    )
)
def test_distances_are_those_to_the_codes(case: Case) -> None:
    quantizer, x = case.build(), batch(5)
    indices, distances = quantizer.candidates(x, 4)
    z = quantizer.project_in(x)
    assert_k_nearest(indices, z.detach(), quantizer.codebook.detach())
    expected = (z[:, None] - quantizer.codebook[indices]).square().sum(-1)
    torch.testing.assert_close(distances, expected)  # D squares and sums in float32, within its default


@pytest.mark.parametrize("distance", ["cosine", "angle"])
def test_directions_are_compared_on_the_unit_sphere(distance: str) -> None:
    quantizer, x = quantizers.create("vq", DIM, codebook_size=SIZE, distance=distance), batch(5)
    indices, distances = quantizer.candidates(x, SIZE)
    similarity = torch.nn.functional.cosine_similarity(x[:, None], quantizer.codebook, dim=-1)
    assert torch.equal(indices, similarity.argsort(descending=True))
    # ‖a − b‖² = 2 − 2 a·b of unit vectors, with roundings of numbers up to 4.
    torch.testing.assert_close(distances, 2 - 2 * similarity.gather(1, indices), rtol=0, atol=1e-5)


@every_search
def test_masks_layouts_and_garbage(case: Case) -> None:
    quantizer, x = case.build(), batch(2, 6)
    expected = quantizer.candidates(x, 3)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 1], x[1, 2, 0], x[0, 1, 0] = False, torch.nan, torch.inf
    quantizer.channel_dim = 1
    found = quantizer.candidates(x.movedim(-1, 1), 3, mask)
    missing = ~mask
    missing[1, 2] = True
    assert (found.indices[missing] == -1).all()
    assert found.squared_distances[missing].isnan().all()
    assert torch.equal(found.indices[~missing], expected.indices[~missing])
    torch.testing.assert_close(found.squared_distances[~missing], expected.squared_distances[~missing])
    assert quantizer.candidates(torch.randn(2, DIM, 0), 3).indices.shape[:2] == (2, 0)


@every_search
def test_calls_change_nothing_and_need_no_gradient(case: Case) -> None:
    quantizer, x = case.build().train(), batch(4).requires_grad_()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    heard = []
    quantizer.register_code_hook(lambda *event: heard.append(event))
    found = quantizer.candidates(x, 2)
    assert not found.squared_distances.requires_grad
    assert not heard
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_other_numbers_of_candidates_are_named() -> None:
    quantizer = quantizers.create("vq", DIM, codebook_size=SIZE)
    for k in (0, SIZE + 1):
        with pytest.raises(ValueError, match=f"k is {k}, expected 1 to {SIZE}, the number of codes"):
            quantizer.candidates(batch(3), k)
    with pytest.raises(ValueError, match=r"k is 2\.5, expected an integer"):
        quantizer.candidates(batch(3), 2.5)


@every_other
def test_every_other_quantizer_says_what_to_do(case: Case) -> None:
    with pytest.raises(TypeError, match=r"; call candidates on ") as error:
        case.build().candidates(batch(3), 1)
    assert type(chooser(case.sample)).__name__ in str(error.value)


def test_a_quantizer_of_maps_says_what_to_do() -> None:
    quantizer = quantizers.create("multiscale", DIM, codebook_size=SIZE, scales=(0.5, 1.0))
    with pytest.raises(TypeError, match="has several codebooks"):
        quantizer.candidates(torch.randn(1, 2, 2, DIM), 1)


def test_a_stage_of_a_composition_gives_those_of_what_it_receives() -> None:
    residual = quantizers.create("residual", DIM, codebook_size=SIZE, num_quantizers=2).eval()
    x = batch(5)
    first, second = residual.components
    left = x - first.decode(first.encode(x))
    found = torch.stack([first.candidates(x, 2).indices[:, 0], second.candidates(left, 2).indices[:, 0]], -1)
    assert torch.equal(found, residual.encode(x))


def test_in_a_compiled_and_in_an_exported_graph() -> None:
    quantizer = quantizers.create("vq", DIM, codebook_size=SIZE).eval()

    class Search(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantizer = quantizer

        def forward(self, x: torch.Tensor) -> quantizers.core.candidates.Candidates:
            return self.quantizer.candidates(x, 3)

    expected, sizes = quantizer.candidates(batch(6), 3), torch.export.Dim("batch", max=2**16)
    for run in (
        torch.compile(Search(), fullgraph=True, backend="aot_eager"),
        torch.export.export(Search(), (batch(5),), dynamic_shapes=[{0: sizes}]).module(),
    ):
        found = run(batch(6))
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.squared_distances, expected.squared_distances)
