"""ResidualVQ of vector-quantize-pytorch: beams, codebooks of several sizes, codes that stay in training."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantizers import plug_in, take_codebook
from tests.adapters.vector_quantize_pytorch.package import EPS, WIDTH, made, normal, trained

SIZES = (5, 12, 30)


def largest(codebooks: Any) -> float:
    return sum(float(codebook.norm(dim=-1).max()) for codebook in codebooks)


@pytest.mark.parametrize("method", ["vq", "ema_vq", "rotation_vq"])
@pytest.mark.parametrize("projects", [False, True])
def test_codebooks_of_several_sizes_are_kept(projects: bool, method: str) -> None:
    options: dict[str, Any] = {"codebook_dim": 4} if projects else {}
    original, x = trained("ResidualVQ", codebook_size=SIZES, num_quantizers=None, **options), normal(2, 60, WIDTH)
    model = nn.Sequential(copy.deepcopy(original)).eval()
    with pytest.raises(ValueError, match=r"the codebooks have \(5, 12, 30\) codes"):
        take_codebook(model)
    plug_in(model, method, keep_codebook=True)
    (reference, indices, _), (new, found, losses) = original(x), model(x)
    same = (found == indices).all(-1)
    assert same.float().mean() > 0.95
    assert losses.shape == (3,)
    scale = largest(original.codebooks) * (1 + (original.project_out.weight.norm() if projects else 0))
    assert ((new - reference).norm(dim=-1) <= 16 * EPS * scale)[same].all()
    for own, codes in zip(model[0].codebooks, original.codebooks, strict=True):
        assert torch.equal(own, codes)
    assert (model[0].codebook_size, model[0].codebook_sizes) == (original.codebook_size, SIZES)
    torch.testing.assert_close(
        model[0].get_output_from_indices(indices), original.get_output_from_indices(indices)
    )
    torch.testing.assert_close(model[0].get_codes_from_indices(indices), original.get_codes_from_indices(indices))


def test_a_quantizer_of_one_size_takes_the_place_of_several() -> None:
    original = made("ResidualVQ", codebook_size=SIZES, num_quantizers=3)
    assert plug_in(nn.Sequential(original), "vq", codebook_size=9)[0].codebook_sizes == (9, 9, 9)
    assert plug_in(nn.Sequential(original), "fsq", levels=(5, 3))[0].codebook_sizes == (15, 15, 15)
    for method in ("fsq", "qinco"):
        with pytest.raises(
            ValueError, match=rf"quantizer is '{method}|residual_fsq', whose stages all have the same size"
        ):
            plug_in(nn.Sequential(original), method)
    with pytest.raises(ValueError, match="codebook_size has 3 sizes for num_quantizers=2 stages"):
        plug_in(nn.Sequential(original), "vq", num_quantizers=2)


def test_beams_of_two_stages_are_the_originals_where_it_counts_the_last_distance() -> None:
    """The original adds up the weighted distances after each stage; weights 0 and 1 give this library's search."""
    original, x = trained("ResidualVQ", num_quantizers=2, beam_size=2, eval_beam_size=4), normal(2, 60, WIDTH)
    reference = copy.deepcopy(original)
    reference.beam_score_weights = torch.tensor([0.0, 1.0])
    with pytest.warns(UserWarning, match="eval_beam_size=4.*may choose others"):
        model = plug_in(nn.Sequential(copy.deepcopy(original)), "vq", keep_codebook=True).eval()
    (expected, indices, _), (new, found, losses) = reference(x), model(x)
    same = (found == indices).all(-1)
    assert same.float().mean() > 0.95
    assert ((new - expected).norm(dim=-1) <= 16 * EPS * largest(original.codebooks))[same].all()
    assert torch.equal(model[0].get_output_from_indices(found), new)
    greedy = model[0](x, beam_size=1)
    assert (distances(new, x) <= distances(greedy[0], x) + 8 * EPS).all()
    assert (distances(new, x) < distances(greedy[0], x)).any()
    assert torch.equal(losses, greedy[2])
    assert torch.equal(model[0](x, beam_size=4)[1], found)


def distances(values: Tensor, x: Tensor) -> Tensor:
    return (values - x).square().sum(-1)


def test_beams_leave_masks_gradients_and_nan_as_they_are() -> None:
    original = made("ResidualVQ", beam_size=3, accept_image_fmap=False)
    adapter = plug_in(original, "vq").eval()
    x, mask = normal(2, 6, WIDTH), torch.arange(6) < torch.tensor([[4], [6]])
    x[1, 0] = torch.nan
    given = x.clone().requires_grad_()
    quantized, indices, _ = adapter(given, mask=mask)
    assert (indices[0, 4:] == -1).all()
    assert (quantized[0, 4:] == 0).all()
    assert quantized[1, 0].isnan().all()
    assert (indices[1, 0] == -1).all()
    quantized.nan_to_num().sum().backward()
    assert given.grad.isfinite().all()
    assert given.grad[1, 1:].any()
    fmap = plug_in(made("ResidualVQ", beam_size=3, accept_image_fmap=True), "vq").eval()
    quantized, indices, _ = fmap(normal(2, WIDTH, 3, 5))
    assert (quantized.shape, indices.shape) == ((2, WIDTH, 3, 5), (2, 3, 5, 3))


def test_beams_are_for_evaluation() -> None:
    """A model that searches beams in training takes the nearest codes there, but not where it asks for them."""
    original = made("ResidualVQ", beam_size=2, eval_beam_size=3, quantize_dropout=True)
    adapter = plug_in(original, "vq")
    assert adapter(normal(2, 6, WIDTH))[1].shape == (2, 6, 3)
    with pytest.raises(ValueError, match="beam_size=2, which this contract does not support in training"):
        adapter(normal(2, 6, WIDTH), beam_size=2)
    with pytest.raises(ValueError, match="the beam width is 3, but quantizer is QINCo"):
        plug_in(made("ResidualVQ", beam_size=3), "qinco", hidden_dim=8)


STILL = (
    ("VectorQuantize", {"freeze_codebook": True}),
    ("VectorQuantize", {"decay": 1.0}),
    ("VectorQuantize", {"ema_update": False}),
    ("VectorQuantize", {"heads": 2, "codebook_dim": 4, "freeze_codebook": True}),
    ("ResidualVQ", {"decay": 1.0}),
    ("ResidualVQ", {"ema_update": False, "shared_codebook": True}),
)


@pytest.mark.parametrize("method", ["vq", "ema_vq", "simvq"])
@pytest.mark.parametrize(("name", "options"), STILL)
def test_codes_that_stay_are_kept_so(name: str, options: dict[str, Any], method: str) -> None:
    original, x = made(name, **options), normal(2, 60, WIDTH)
    model = plug_in(nn.Sequential(copy.deepcopy(original)), method, keep_codebook=True)
    before = model[0].codebook.detach().clone()
    optimizer = torch.optim.SGD([*model.parameters(), nn.Parameter(torch.zeros(1))], lr=0.1)
    for _ in range(2):
        quantized, found, loss = model(x.clone().requires_grad_())
        (quantized.square().sum() + loss.sum()).backward()
        optimizer.step()
        assert torch.equal(model[0].codebook, before)
    torch.testing.assert_close(model[0].get_output_from_indices(found), quantized)
    reference, indices, _ = original(x)
    same = (found == indices).reshape(2, 60, -1).all(-1)
    assert same.float().mean() > 0.95
    torch.testing.assert_close(quantized[same], reference[same])


@pytest.mark.parametrize("method", ["vq", "ema_vq", "simvq", "rotation_vq"])
@pytest.mark.parametrize("name", ["VectorQuantize", "ResidualVQ"])
def test_a_forward_that_freezes_moves_nothing(name: str, method: str) -> None:
    """And the next one learns again. With the codes the averages stay."""
    model = plug_in(nn.Sequential(made(name)), method)
    x, state = normal(2, 60, WIDTH), copy.deepcopy(model.state_dict())
    quantized, found, loss = model[0](x.clone().requires_grad_(), freeze_codebook=True)
    assert not model[0].quantizer.frozen
    (quantized.square().sum() + loss.sum()).backward()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
    torch.testing.assert_close(model[0].get_output_from_indices(found), quantized)
    quantized, _, loss = model[0](x.clone().requires_grad_())
    (quantized.square().sum() + loss.sum()).backward()
    moved = any(not torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert moved or any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_a_forward_may_let_frozen_codes_move() -> None:
    model = plug_in(nn.Sequential(made("VectorQuantize", freeze_codebook=True)), "ema_vq", keep_codebook=True)
    before = model[0].codebook.clone()
    model[0](normal(2, 60, WIDTH), freeze_codebook=False)
    assert not torch.equal(model[0].codebook, before)
    assert model[0].quantizer.frozen
