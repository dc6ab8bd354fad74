"""The classes of vector-quantize-pytorch in a small autoencoder, and the state that is copied from them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quantizers import plug_in, take_codebook, unplug
from quantizers.kernels.levels.bound import bound_levels
from tests.adapters.common import METHODS, loss_falls, nearest_gap
from tests.adapters.vector_quantize_pytorch.package import (
    CODES,
    EPS,
    WIDTH,
    made,
    normal,
    package,
    same_rows,
    trained,
)

KEEPING = ("vq", "ema_vq", "simvq", "rotation_vq", "gumbel")

Make = Callable[..., nn.Module]


class Autoencoder(nn.Module):
    """Linear maps around a quantizer, on [B, N, 6]."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, WIDTH)
        self.bottleneck = quantizer
        self.decoder = nn.Linear(WIDTH, 6)

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.bottleneck(self.encoder(x))
        loss = outputs[2].sum() if len(outputs) > 2 else self.bottleneck.loss
        return nn.functional.mse_loss(self.decoder(outputs[0]), x), loss


def clustered() -> Tensor:
    """[2, 20, 6] in four places."""
    return 3 * normal(4, 6)[torch.arange(40) % 4].reshape(2, 20, 6) + 0.1 * normal(2, 20, 6)


NAMES = ("VectorQuantize", "SimVQ", "ResidualVQ", "ResidualSimVQ", "FSQ", "ResidualFSQ", "LFQ")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_trains_and_answers_as_the_original(name: str, method: str) -> None:
    model, x = Autoencoder(made(name)), clustered()
    z = normal(2, 5, WIDTH)
    expected = model.bottleneck(z)
    assert plug_in(model, method) is model
    loss_falls(model, lambda: model.losses(x), rate=3e-2)
    outputs = model.eval().bottleneck(z)
    assert getattr(outputs, "_fields", None) == getattr(expected, "_fields", None)
    assert [tuple(part.shape) for part in outputs] == [tuple(part.shape) for part in expected]
    decode = "indices_to_codes" if name in ("SimVQ", "FSQ", "LFQ") else "get_output_from_indices"
    torch.testing.assert_close(getattr(model.bottleneck, decode)(outputs[1]), outputs[0])
    assert unplug(model).bottleneck(z)[0].shape == z.shape


LAYOUTS = (
    ("VectorQuantize", {}, (5, WIDTH)),
    ("VectorQuantize", {"channel_last": False}, (2, WIDTH, 5)),
    ("VectorQuantize", {"channel_last": False}, (5, WIDTH)),
    ("VectorQuantize", {"accept_image_fmap": True}, (2, WIDTH, 3, 4)),
    ("VectorQuantize", {"accept_3d_fmap": True}, (2, WIDTH, 3, 4, 2)),
    ("SimVQ", {}, (5, WIDTH)),
    ("SimVQ", {"channel_first": True}, (2, WIDTH, 3, 4)),
    ("ResidualSimVQ", {"channel_first": True}, (2, WIDTH, 3, 4)),
    ("FSQ", {}, (2, WIDTH, 3, 4)),
    ("FSQ", {"channel_first": True}, (2, WIDTH, 5)),
    ("FSQ", {"keep_num_codebooks_dim": True}, (2, 5, WIDTH)),
    ("FSQ", {"keep_num_codebooks_dim": True}, (2, WIDTH, 3, 4)),
    ("FSQ", {"return_indices": False}, (2, 5, WIDTH)),
    ("LFQ", {}, (2, WIDTH, 3, 4)),
    ("LFQ", {"channel_first": True, "keep_num_codebooks_dim": True}, (2, WIDTH, 5)),
    ("ResidualFSQ", {"is_channel_first": True}, (2, WIDTH, 3, 4)),
)


@pytest.mark.parametrize(("name", "options", "shape"), LAYOUTS)
def test_layouts_are_the_originals(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Of outputs, and of the vectors that indices are decoded to."""
    original, x = made(name, **options).eval(), normal(*shape)
    model = plug_in(nn.Sequential(original), "vq")
    reference, new = original(x), model(x)
    assert [None if part is None else part.shape for part in new] == [
        None if part is None else part.shape for part in reference
    ]
    for method in ("get_codes_from_indices", "get_output_from_indices", "indices_to_codes"):
        if hasattr(original, method) and reference[1] is not None and name != "ResidualFSQ":
            assert getattr(model[0], method)(new[1]).shape == getattr(original, method)(reference[1]).shape
    if hasattr(model[0], "indices_to_codes") and new[1] is not None:
        assert torch.equal(model[0].indices_to_codes(new[1]), new[0])


def test_images_through_stages() -> None:
    """By the package's documents [B, C, H, W] → indices [B, H, W, q]; its version 1.32 raises in the forward."""
    original = made("ResidualVQ", accept_image_fmap=True)
    model = plug_in(nn.Sequential(original), "vq")
    quantized, indices, losses = model(normal(2, WIDTH, 3, 4))
    assert (quantized.shape, indices.shape, losses.shape) == ((2, WIDTH, 3, 4), (2, 3, 4, 3), (3,))
    assert model[0].get_codes_from_indices(indices).shape == original.get_codes_from_indices(indices).shape
    decoded = model[0].get_output_from_indices(indices)
    assert decoded.shape == original.get_output_from_indices(indices).shape
    assert torch.equal(decoded.movedim(-1, 1), quantized)


@pytest.mark.parametrize("method", KEEPING)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rotation_trick": False, "decay": 0.9, "kmeans_init": True},
        {"codebook_dim": 4},
        {"codebook_dim": 4, "layernorm_after_project_in": True},
        {"use_cosine_sim": True},
        {"learnable_codebook": True, "ema_update": False, "commitment_weight": 0.5},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_kept_codebook_gives_what_the_model_gave(options: dict[str, Any], method: str) -> None:
    """To the bit; a projection rounds each of its sums, and codes of unit norm are normalised once more."""
    original, x = trained("VectorQuantize", **options), normal(2, 60, WIDTH)
    model = nn.Sequential(original).eval()
    codebook, (before, indices, _) = take_codebook(model), model(x)
    assert torch.equal(codebook, original.codebook)
    cosine = original.use_cosine_sim
    if cosine and method == "gumbel":
        with pytest.raises(ValueError, match="does not compare by cosine"):
            plug_in(model, method, keep_codebook=True)
        assert model[0] is original
        return
    plug_in(model, method, keep_codebook=True)
    after, found, _ = model(x)
    z = original.project_in(x)
    z = nn.functional.normalize(z, dim=-1) if cosine else z
    same = same_rows(found, indices, z, codebook)
    codes = original.get_codes_from_indices(indices)
    terms = codes.shape[-1] + 2
    scale = codes.abs() if cosine else torch.zeros_like(before)
    if original.has_projections:
        scale = codes.abs() @ original.project_out.weight.abs().T + original.project_out.bias.abs()
    assert ((after - before).abs() <= terms * EPS * scale)[same].all()
    assert torch.equal(model[0].get_codes_from_indices(found), take_codebook(model)[found])


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("rotation", [False, True])
def test_training_goes_on_alike(rotation: bool, cosine: bool) -> None:
    """One forward in training moves averages and codes of EMA alike, with the same loss and gradients."""
    weights = {"commitment_weight": 0.3, "eps": 0.03}
    original = trained("VectorQuantize", rotation_trick=rotation, use_cosine_sim=cosine, **weights)
    model = plug_in(nn.Sequential(copy.deepcopy(original)), "ema_vq", keep_codebook=True)
    new = model[0].quantizer
    before, sums = take_codebook(model), new.embedding_sum.clone()
    weight, gradients, losses = normal(2, 60, WIDTH, seed=2), [], []
    for module in (original.train(), model.train()):
        x = normal(2, 60, WIDTH).requires_grad_()
        quantized, _, loss = module(x)
        ((quantized * weight).sum() + loss).backward()
        gradients.append(x.grad)
        losses.append(loss)
    torch.testing.assert_close(*losses)
    # Each is a product of a few vectors of WIDTH, of the size of g · ‖e‖ / ‖x‖, and of 1 / ‖x̂ + ê‖ in between.
    x = normal(2, 60, WIDTH)
    codes = before[new.encode(x)]
    facing = (nn.functional.normalize(x, dim=-1) + nn.functional.normalize(codes, dim=-1)).norm(dim=-1)
    size = weight.norm(dim=-1) * (1 + codes.norm(dim=-1) / x.norm(dim=-1)) + 1
    errors = (gradients[0] - gradients[1]).norm(dim=-1)
    assert (errors <= 8 * (WIDTH + 4) * EPS * size / facing).all()
    # Sums of up to 120 vectors beside the old ones, each of 9 roundings more until it is a code.
    old = original._codebook
    vectors = nn.functional.normalize(x, dim=-1) if cosine else x
    chosen = nn.functional.one_hot(new.encode(x), CODES).float().reshape(-1, CODES)
    terms = (sums.abs() + chosen.T @ vectors.abs().reshape(-1, WIDTH)) / old.cluster_size[0][:, None].clamp(
        min=1e-3
    )
    largest = terms if not cosine else terms / (sums.norm(dim=-1, keepdim=True) / old.cluster_size[0][:, None])
    assert not torch.equal(take_codebook(model), before)
    assert (
        (take_codebook(model) - original.codebook).abs() <= 2 * (120 + 9) * EPS * largest.clamp(min=1e-3)
    ).all()
    torch.testing.assert_close(new.cluster_size, old.cluster_size[0])


def test_a_codebook_that_was_learned_by_gradient_gets_the_same_gradient() -> None:
    original = trained("VectorQuantize", learnable_codebook=True, ema_update=False, commitment_weight=0.5)
    model = plug_in(nn.Sequential(original), "vq", keep_codebook=True).train()
    original.train()
    x = normal(2, 60, WIDTH)
    losses = [module(x.clone().requires_grad_())[2] for module in (original, model)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(2 * losses[0], losses[1])
    torch.testing.assert_close(original._codebook.embed.grad[0], model[0].quantizer.embedding.grad)


TRANSFORMS: dict[str, Callable[[], nn.Module | None]] = {
    "linear": lambda: None,
    "bias": lambda: nn.Linear(WIDTH, WIDTH),
    "deep": lambda: nn.Sequential(nn.Linear(WIDTH, 12), nn.ReLU(), nn.Linear(12, WIDTH)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("rotation", [False, True])
def test_simvq_keeps_basis_and_transform(rotation: bool, transform: str) -> None:
    """Codes are the same to the bit, the loss and the transform's gradients up to rounding, step after step."""
    weights = {"commitment_weight": 0.5, "input_to_quantize_commit_loss_weight": 0.1}
    original = trained("SimVQ", rotation_trick=rotation, codebook_transform=TRANSFORMS[transform](), **weights)
    model = plug_in(nn.Sequential(original), "simvq", keep_codebook=True)
    new, x = model[0].quantizer, normal(2, 60, WIDTH)
    assert torch.equal(new.codebook, original.codebook)
    assert torch.equal(new.basis, original.frozen_codebook)
    assert not new.basis.requires_grad
    reference, found = original(x), model(x)
    same = same_rows(found[1], reference[1], x, original.codebook)
    codes = original.codebook[reference[1]]
    assert torch.equal(found[0][same], codes[same])
    # The original returns x + (e − x), or x rotated to e by a reflection at x̂ + ê and one at ê.
    facing = (nn.functional.normalize(x, dim=-1) + nn.functional.normalize(codes, dim=-1)).norm(dim=-1)
    scale = (
        codes.norm(dim=-1) / facing * 8 * (WIDTH + 4) if rotation else 2 * (x.norm(dim=-1) + codes.norm(dim=-1))
    )
    assert ((found[0] - reference[0]).norm(dim=-1) <= scale * EPS)[same].all()
    model.train()
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (original, new)]
    for _ in range(3):
        reached: list[tuple[Tensor, Tensor]] = []
        for module, optimizer in zip((original, model), optimizers, strict=True):
            given = x.clone().requires_grad_()
            loss = module(given)[2]
            loss.backward()
            reached.append((loss, given.grad))
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(*reached)
    for a, b in zip(original.code_transform.parameters(), new.transform.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_simvq_on_a_basis_of_other_channels_keeps_the_codes() -> None:
    original = trained("SimVQ", frozen_codebook_dim=4)
    for method in ("simvq", "vq", "affine_vq"):
        model = plug_in(nn.Sequential(original), method, keep_codebook=True)
        assert torch.equal(model[0].quantizer.codebook, original.codebook)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(3, 9), min_size=1, max_size=4),
    st.sampled_from([None, 6]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_fsq_keeps_levels_and_projections(levels: list[int], dim: int | None, bias: bool, seed: int) -> None:
    """Indices are the same where no channel is within rounding of the edge between two levels."""
    torch.manual_seed(seed)
    original = package.FSQ(levels, dim=dim, projection_has_bias=bias).eval()
    model = plug_in(nn.Sequential(original), "fsq", keep_codebook=True)
    assert model[0].quantizer.level_counts == tuple(levels)
    x = 2 * torch.randn(2, 50, original.dim)
    (new, found), (reference, indices) = model(x), original(x)
    z = original.project_in(x)
    counts = torch.tensor(levels)
    size = z.abs()
    if original.has_projections:
        size = x.abs() @ original.project_in.weight.abs().T + (original.project_in.bias.abs() if bias else 0)
    # A bounded channel has few roundings of at most L/2, and what the projection's dot product had.
    positions = bound_levels(z.double(), counts, 1.0) * (counts // 2)
    edge = ((positions - 0.5) - (positions - 0.5).round()).abs()
    clear = (edge > counts * EPS * (8 + (original.dim + 2) * size)).all(-1)
    assert clear.float().mean() > 0.9
    assert torch.equal(found[clear], indices[clear].long())
    scale = torch.zeros_like(reference)
    if original.has_projections:
        weight = original.project_out.weight.abs()
        scale = weight.sum(-1) + (original.project_out.bias.abs() if bias else 0)  # codes are at most 1
    bound = (len(levels) + 2) * EPS * scale
    assert ((new - reference).abs() <= bound)[clear].all()
    assert torch.equal(take_codebook(nn.Sequential(original)), original.implicit_codebook)
    assert torch.equal(model[0].implicit_codebook, original.implicit_codebook)
    assert torch.equal(
        model[0].codes_to_indices(original.implicit_codebook), torch.arange(len(original.implicit_codebook))
    )


@pytest.mark.parametrize("method", KEEPING)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ResidualVQ", {}),
        ("ResidualVQ", {"codebook_dim": 4, "shared_codebook": True}),
        ("ResidualVQ", {"use_cosine_sim": True, "quantize_dropout": True}),
        ("ResidualSimVQ", {}),
    ],
)
def test_stages_keep_their_codebooks(name: str, options: dict[str, Any], method: str) -> None:
    original = trained(name, **options)
    if options.get("use_cosine_sim") and method == "gumbel":
        return
    x = normal(2, 60, WIDTH)
    before, indices, _ = original(x)
    model = plug_in(nn.Sequential(original), method, keep_codebook=True).eval()
    new = model[0].quantizer
    assert new.dropout == (1.0 if options.get("quantize_dropout") else 0.0)
    assert len(new.quantizers) == (1 if options.get("shared_codebook") else 3)
    after, found, losses = model(x)
    assert losses.shape == (3,)
    clear = clear_of_ties(original, x, indices)
    assert clear.float().mean() > 0.9
    assert torch.equal(found[clear], indices[clear])
    codes = model[0].get_codes_from_indices(indices)
    reference = original.get_codes_from_indices(indices)
    assert (
        (codes - reference).abs() <= (WIDTH + 4) * EPS * reference.abs() * bool(options.get("use_cosine_sim"))
    ).all()
    # Each of three codes has been rounded on its way, and the sums, and what a projection sums up.
    roundings = 8 * (WIDTH + 4) if name == "ResidualSimVQ" or options.get("use_cosine_sim") else WIDTH + 8
    size = reference.abs().sum(0).norm(dim=-1) * (
        original.project_out.weight.norm() if "codebook_dim" in options else 1
    )
    assert ((after - before).norm(dim=-1) <= roundings * EPS * (size + 1) * STEEPEST)[clear].all()


STEEPEST = 8.0  # 1 / ‖x̂ + ê‖ of a vector and its nearest code, which face the same side


@torch.no_grad()
def clear_of_ties(original: Any, x: Tensor, indices: Tensor) -> Tensor:
    """Which vectors [B, N] are not between two codes at any stage, for the residuals that `indices` leave."""
    residual = original.project_in(x) if hasattr(original, "project_in") else x
    clear = torch.ones(x.shape[:-1], dtype=torch.bool)
    cosine = getattr(original.layers[0], "use_cosine_sim", False)
    for place, codebook in enumerate(original.codebooks):
        z = nn.functional.normalize(residual, dim=-1) if cosine else residual
        gap = nearest_gap(z.reshape(-1, z.shape[-1]), codebook).reshape(clear.shape)
        clear &= gap > 16 * (WIDTH + 4) * STEEPEST * EPS
        residual = residual - codebook[indices[..., place]]
    return clear


def test_groups_of_stages_are_places_of_their_own() -> None:
    groups = package.GroupedResidualVQ(dim=WIDTH, groups=2, codebook_size=CODES, num_quantizers=3)
    model, x = Autoencoder(groups), clustered()
    z = normal(2, 5, WIDTH)
    before = [part.shape for part in groups(z)]
    with pytest.raises(ValueError, match=r"'bottleneck.rvqs.0' \(ResidualVQ\), 'bottleneck.rvqs.1'"):
        plug_in(model, "simvq")
    plug_in(model, "simvq", at=["bottleneck.rvqs.0", "bottleneck.rvqs.1"])
    loss_falls(model, lambda: model.losses(x), rate=3e-2)
    outputs = groups(z, return_all_codes=True)
    assert [part.shape for part in outputs[:3]] == before
    torch.testing.assert_close(groups.get_output_from_indices(outputs[1]), outputs[0])
    torch.testing.assert_close(groups.get_codes_from_indices(outputs[1]), torch.stack(outputs[3]))


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("name", ["VectorQuantize", "ResidualVQ"])
def test_masks(name: str, zeros: bool) -> None:
    original = trained(name, return_zeros_for_masked_padding=zeros)
    model = plug_in(nn.Sequential(original), "ema_vq", keep_codebook=True)
    x, mask = normal(2, 6, WIDTH), torch.arange(6) < torch.tensor([[4], [6]])
    new, reference = model[0](x, mask=mask), original(x, mask=mask)
    assert torch.equal(new[0], reference[0])
    assert torch.equal(new[1], reference[1])
    assert (new[1][0, 4:] == -1).all()
    if name == "VectorQuantize":
        assert torch.equal(model[0](x, lens=torch.tensor([4, 6]))[0], new[0])
        with pytest.raises(ValueError, match="with lens has mask="):
            model[0](x, lens=torch.tensor([4, 6]), mask=mask)


def test_what_models_read() -> None:
    model = plug_in(nn.Sequential(made("VectorQuantize", codebook_dim=4)), "vq")
    adapter = model[0]
    assert (adapter.dim, adapter.codebook_size, adapter.codebook_dim) == (WIDTH, CODES, 4)
    codes = normal(CODES, 4)
    adapter.codebook = codes
    assert torch.equal(adapter.codebook, codes)
    assert torch.equal(adapter.project_out(codes), adapter.get_output_from_indices(torch.arange(CODES)))
    assert torch.equal(adapter.project_in(normal(3, WIDTH)), adapter.quantizer.project_in(normal(3, WIDTH)))
    with pytest.raises(ValueError, match="FSQ has no codes that can be set"):
        plug_in(model, "fsq")[0].codebook = codes
    residual = plug_in(nn.Sequential(made("ResidualVQ")), "simvq")[0]
    assert residual.codebooks.shape == (residual.num_quantizers, CODES, WIDTH)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_in_half_precision_gets_its_vectors(name: str) -> None:
    adapter = plug_in(made(name), "vq").bfloat16().eval()
    vectors, indices = adapter(normal(2, 6, WIDTH).bfloat16())[:2]
    for method in ("get_output_from_indices", "indices_to_codes"):
        if hasattr(adapter, method):
            decoded = getattr(adapter, method)(indices)
            assert decoded.dtype == torch.bfloat16
            assert torch.equal(decoded, vectors)
    if hasattr(adapter, "get_codes_from_indices"):
        assert adapter.get_codes_from_indices(indices).dtype == torch.bfloat16


def test_a_loss_without_a_place_stands_aside() -> None:
    """FSQ's contract has none. It is the last forward's, and no copy or checkpoint has it."""
    model = plug_in(nn.Sequential(made("FSQ")), "vq")
    assert model[0].loss is None
    model(normal(2, 5, WIDTH))
    assert model[0].loss.requires_grad
    assert torch.equal(model[0].loss, model[0].quantizer(normal(2, 5, WIDTH)).loss)
    assert copy.deepcopy(model)[0].loss is None


def test_qinco_gives_one_loss_for_all_stages() -> None:
    model = plug_in(nn.Sequential(made("ResidualVQ")), "qinco", hidden_dim=8)
    quantized, indices, losses = model(normal(2, 5, WIDTH))
    assert (indices.shape, losses.shape) == ((2, 5, 3), (3,))
    assert torch.equal(losses[0], model[0].quantizer(normal(2, 5, WIDTH)).loss)
    assert (losses[1:] == 0).all()
    assert torch.equal(model[0].get_output_from_indices(indices), quantized)
    with pytest.raises(ValueError, match="QINCo has no codes of single stages"):
        model[0].get_codes_from_indices(indices)


def test_a_new_quantizer_takes_what_it_can_from_the_old_one() -> None:
    fsq = plug_in(nn.Sequential(made("FSQ")), "fsq")[0].quantizer
    assert fsq.level_counts == (5, 4, 3)
    assert plug_in(nn.Sequential(made("FSQ")), "fsq", levels=(7, 7))[0].quantizer.level_counts == (7, 7)
    assert plug_in(nn.Sequential(made("FSQ")), "fsq", codebook_size=256)[0].quantizer.codebook_size == 240
    assert plug_in(nn.Sequential(made("FSQ")), "vq")[0].quantizer.codebook_size == 60
    stages = plug_in(nn.Sequential(made("ResidualFSQ", quantize_dropout=True)), "fsq")[0].quantizer
    assert (stages.components[0].level_counts, stages.dropout, stages.dropout_by) == ((5, 4, 3), 1.0, "batch")
    cosine = plug_in(nn.Sequential(made("VectorQuantize", use_cosine_sim=True, codebook_dim=4)), "simvq")[0]
    assert (cosine.quantizer.distance, cosine.quantizer.code_dim) == ("cosine", 4)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("ResidualVQ", {"beam_size": 2, "beam_score_quantizer_weights": [1.0, 2.0, 3.0]},
         r"beam_score_quantizer_weights=\[1.0, 2.0, 3.0\]"),
        ("ResidualVQ", {"quantize_dropout": True, "quantize_dropout_cutoff_index": 1}, "cutoff_index=1"),
        ("ResidualFSQ", {"quantize_dropout": True, "quantize_dropout_multiple_of": 2}, "multiple_of=2"),
    ],
)  # fmt: skip
def test_calls_that_are_not_kept_are_named(name: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has .*{named}, which this contract does not support"):
        plug_in(nn.Sequential(made(name, **options)), "vq")


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("VectorQuantize", {"affine_param": True}, "affine_param=True"),
        ("VectorQuantize", {"kmeans_init": True}, "has seen no batch"),
        ("VectorQuantize", {"use_cosine_sim": True, "orthogonal_reg_weight": 1.0, "ema_update": False},
         "orthogonal_reg_weight=1.0"),
        ("ResidualVQ", {"implicit_neural_codebook": True}, "implicit_neural_codebook=True"),
        ("ResidualVQ", {"diveq": True, "threshold_ema_dead_code": 2}, "diveq=True"),
        ("FSQ", {"preserve_symmetry": True}, "preserve_symmetry=True"),
        ("FSQ", {"bound_hard_clamp": True}, "bound_hard_clamp=True"),
        ("FSQ", {"orthogonal_rotation": True, "levels": [5, 5]}, "orthogonal_rotation=True"),
        ("FSQ", {}, "VectorQuantizer with no levels"),
        ("LFQ", {}, "has no table of codes"),
        ("ResidualFSQ", {}, "codes to keep are 3 stages of 'fsq'"),
        ("ResidualFSQ", {"bound_hard_clamp": False}, "bound_hard_clamp=False, which keep_codebook does not"),
        ("ResidualFSQ", {"noise_dropout": 0.5}, "noise_dropout=0.5"),
        ("ResidualFSQ", {"orthogonal_rotation": True, "levels": [5, 5]}, "orthogonal_rotation=True"),
    ],
)  # fmt: skip
def test_states_that_cannot_be_kept_are_named(name: str, options: dict[str, Any], named: str) -> None:
    """A new quantizer can replace such a one nevertheless."""
    model = nn.Sequential(made(name, **options))
    with pytest.raises(ValueError, match=named):
        plug_in(model, "vq", keep_codebook=True)
    assert plug_in(model, "vq")(normal(2, 5, WIDTH))[0].shape == (2, 5, WIDTH)


def test_fsq_on_another_grid_is_not_kept() -> None:
    for options in ({"levels": (5, 3, 4)}, {"levels": (5, 4, 3), "bound": "ifsq"}):
        with pytest.raises(ValueError, match="expected 'fsq' with these levels"):
            plug_in(nn.Sequential(made("FSQ")), "fsq", keep_codebook=True, **options)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("VectorQuantize", {"topk": 2}),
        ("VectorQuantize", {"ema_update": False}),
        ("VectorQuantize", {"ema_update_weight": 0.0}),
        ("VectorQuantize", {"accum_ema_update": True}),
        ("VectorQuantize", {"codebook_transform_fn": torch.nn.Identity()}),
        ("VectorQuantize", {"sample_codebook_temp": 0.5}),
        ("VectorQuantize", {"return_loss_breakdown": True}),
        ("VectorQuantize", {"indices": torch.zeros(2, 5, dtype=torch.long)}),
        ("ResidualVQ", {"beam_size": 2}),
        ("LFQ", {"return_loss_breakdown": True}),
        ("LFQ", {"inv_temperature": 1.0}),
        ("LFQ", {"inv_temperature": 0.0}),
    ],
)
def test_arguments_that_are_not_kept_are_named(name: str, arguments: dict[str, Any]) -> None:
    model = plug_in(nn.Sequential(made(name)), "vq")
    with pytest.raises(ValueError, match=f"forward has {next(iter(arguments))}="):
        model[0](normal(2, 5, WIDTH), **arguments)


@pytest.mark.parametrize("name", ["VectorQuantize", "ResidualVQ"])
def test_arguments_that_the_original_does_not_have(name: str) -> None:
    """Those that ask for nothing are taken."""
    adapter = plug_in(made(name), "vq")
    assert torch.equal(adapter(normal(2, 5, WIDTH), sample_codebook_temp=0.0)[1], adapter(normal(2, 5, WIDTH))[1])
    with pytest.raises(TypeError, match="unexpected keyword argument 'update'"):
        adapter(normal(2, 5, WIDTH), update=False)
