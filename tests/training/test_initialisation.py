"""`initialize_from`: a codebook gets the codes of k-means on the vectors that reach it, and nothing else moves."""

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from quantizers import (
    EMAVectorQuantizer,
    GroupedQuantizer,
    MultiScaleQuantizer,
    QINCo,
    Quantizer,
    ResidualQuantizer,
    SimVQ,
    VectorQuantizer,
    VQBridge,
)
from quantizers.clustering.kmeans import kmeans
from quantizers.core.layout import to_rows
from quantizers.kernels.nearest.operation import nearest_code
from tests.cases import DIM, Case, assert_same_state, batch, cases_where, every_case, modes, normal, state_of
from tests.effort import examples

EPS = torch.finfo(torch.float32).eps


def is_refused(case: Case) -> bool:
    """Whether a map of the codebook cannot be set to the identity."""
    return not hasattr(getattr(case.sample, "transform", VQBridge), "to_identity")


def gets_centroids(case: Case) -> bool:
    """Whether its one codebook becomes the centroids, and each vector gets the nearest one."""
    initialized = case.sample.initializes_from_data and not is_refused(case) and not case.sample.composed
    return initialized and case.learns_all_codes and case.choice in ("nearest", "logits")


def error_after(quantizer: Quantizer, x: Tensor) -> Tensor:
    """Σ ‖z − value‖² in code space, float64."""
    z = (
        quantizer._to_value_space(quantizer.project_in(x))
        if hasattr(quantizer, "_to_value_space")
        else quantizer.project_in(x)
    )
    return (z.double() - quantizer._decode(quantizer.encode(x)).double()).square().sum()


@modes
@cases_where(gets_centroids)
def test_every_code_is_used_and_the_error_is_that_of_kmeans(case: Case, training: bool) -> None:
    quantizer, x = case.build().train(training), 3 + batch(300)
    torch.manual_seed(5)
    quantizer.initialize_from(x)
    assert quantizer.training == training
    assert quantizer.encode(x).unique().numel() == quantizer.codebook_size
    distance = getattr(quantizer, "distance", "euclidean")
    with torch.no_grad():
        z = quantizer.project_in(x)
        torch.manual_seed(5)
        expected = kmeans(z, quantizer.codebook_size, distance=distance)
        # Codes of unit norm are divided by it once more.
        torch.testing.assert_close(quantizer.codebook, expected, rtol=0, atol=4 * EPS * (distance == "cosine"))
        z = quantizer._to_value_space(z) if hasattr(quantizer, "_to_value_space") else z
        compared = (
            quantizer._to_search_space if hasattr(quantizer, "_to_search_space") else lambda vectors: vectors
        )
        nearest = nearest_code(compared(z)[None], compared(expected)[None])[0][0]
        # A linear map's scores are rounded, and so is a code of unit norm: what is nearest is so up to that.
        slack = len(x) * 2 * (DIM + 2) * EPS * 2 * (z.norm(dim=-1).max() + 1).square()
        least = (z - expected[nearest]).double().square().sum()
        assert (error_after(quantizer, x) - least).abs() <= slack


@every_case
def test_only_vectors_that_count_do(case: Case) -> None:
    """Masked and non-finite vectors leave no trace; what learns no codes stays as it is."""
    quantizer, x = case.build(), batch(90)
    if is_refused(case):
        with pytest.raises(ValueError, match="has no method to_identity"):
            quantizer.initialize_from(x)
        return
    before, marred = state_of(quantizer), torch.cat([x, batch(20, seed=1)])
    marred[90:100] = torch.nan
    mask = torch.arange(110) < 100
    other = copy.deepcopy(quantizer)
    torch.manual_seed(5)
    quantizer.initialize_from(x)
    torch.manual_seed(5)
    other.initialize_from(marred, mask)
    assert_same_state(state_of(quantizer), state_of(other))
    moved = {name for name, tensor in state_of(quantizer).items() if not torch.equal(tensor, before[name])}
    assert bool(moved) == (quantizer.initializes_from_data and not quantizer.frozen)
    assert not any(
        "project" in name or "log_" in name for name in moved & dict(quantizer.named_parameters()).keys()
    )


@modes
@cases_where(lambda case: not case.options)
def test_a_forward_never_does_it(case: Case, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("given", "simvq", "gumbel", "ibq"):
        monkeypatch.setattr(f"quantizers.codebooks.{module}.kmeans", None)
    monkeypatch.setattr("quantizers.composite.qinco.kmeans", None)
    quantizer = case.build().train(training)
    quantizer(batch(9))
    quantizer.encode(batch(9))


@examples(8)
@given(seed=st.integers(0, 999), distance=st.sampled_from(["euclidean", "cosine"]))
def test_averages_start_with_their_codes(seed: int, distance: str) -> None:
    """As after `set_codebook`: a step without a vector of a code leaves it, but for the smoothing's ε."""
    quantizer = EMAVectorQuantizer(3, 8, distance=distance, epsilon=1e-6)  # type: ignore[arg-type]
    x = normal(seed, 50, 3, dtype=torch.float32)
    quantizer.initialize_from(x)
    assert torch.equal(quantizer.embedding, quantizer.embedding_sum)
    assert (quantizer.cluster_size == 1).all()
    codes = quantizer.embedding.clone()
    given_to = quantizer(x[:1]).indices
    stayed = torch.arange(8) != given_to
    # e = m / N̂ with N̂/N = (1 + ε/N) / (1 + 8ε/ΣN), N at least 0.99.
    allowed = codes.norm(dim=-1) * (9 * 1e-6 / 0.99 + 20 * EPS)
    assert ((quantizer.embedding - codes).norm(dim=-1) <= allowed)[stayed].all()


@examples(8)
@given(seed=st.integers(0, 999), learned_scale=st.booleans())
def test_linear_logits_become_distances(seed: int, learned_scale: bool) -> None:
    quantizer = quantizers.GumbelQuantizer(3, 16, logits="linear", learned_scale=learned_scale).double()
    x = normal(seed, 80, 3)
    quantizer.initialize_from(x)
    keys, bias = quantizer._keys(x.dtype)
    with torch.no_grad():
        logits = x @ keys.T + bias
    distances = -(x[:, None] - quantizer.codebook.detach()).square().sum(-1)
    torch.testing.assert_close(logits - logits[:, :1], distances - distances[:, :1], rtol=0, atol=1e-12)
    assert torch.equal(quantizer.encode(x), distances.argmax(-1))


def test_codes_of_one_length_all_have_the_largest_product_somewhere() -> None:
    """IBQ: those of k-means would not. Their length is that of first codes, whatever that of the vectors is."""
    torch.manual_seed(0)
    quantizer, x = Case("ibq").build(), 0.1 * batch(300)
    quantizer.initialize_from(x)
    assert quantizer.encode(x).unique().numel() == quantizer.codebook_size
    lengths = quantizer.codebook.detach().norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, DIM**0.5))
    plain = copy.deepcopy(quantizer)
    plain.set_codebook(kmeans(x, quantizer.codebook_size))
    assert plain.encode(x).unique().numel() < quantizer.codebook_size


# Quantizers that hold quantizers


@torch.no_grad()
def stage_errors(quantizer: Quantizer, x: Tensor) -> list[float]:
    """Σ ‖x − value‖² after no stage, after one, ..."""
    indices, errors = quantizer.encode(x), [float(x.double().square().sum())]
    for kept in range(1, quantizer.num_codebooks + 1):
        some = indices.clone()
        some[:, kept:] = -1
        errors.append(float((x.double() - quantizer.decode(some).double()).square().sum()))
    return errors


def stages_of(kind: str) -> Quantizer:
    if kind == "qinco":
        return QINCo(DIM, 8, num_quantizers=4, hidden_dim=8)
    scales = {"learn_scales": True, "scales": [1.0, 0.5, 0.25, 0.1]} if kind == "scaled" else {}
    return quantizers.create("residual", dim=DIM, codebook_size=8, **scales)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["plain", "scaled", "qinco"])
@examples(5)
@given(seed=st.integers(0, 999))
def test_errors_fall_stage_by_stage(kind: str, seed: int) -> None:
    """k-means with eight codes is nearer than with one, the mean, which is nearer than none."""
    torch.manual_seed(seed)
    quantizer, x = stages_of(kind), 5 + normal(seed, 100, DIM, dtype=torch.float32)
    quantizer.initialize_from(x)
    errors = stage_errors(quantizer, x)
    for before, after in itertools.pairwise(errors):
        assert after < before


def test_a_stage_starts_from_what_those_before_it_leave() -> None:
    """Through entry and scales, with k-means' own random numbers."""
    x = batch(200)
    residual = ResidualQuantizer(
        DIM, [VectorQuantizer(DIM, 8), EMAVectorQuantizer(DIM, 8)], entry=nn.Tanh(), scales=[2.0, 0.5]
    )
    torch.manual_seed(3)
    residual.initialize_from(x)
    torch.manual_seed(3)
    inputs = x.tanh() / torch.tensor(2.0).log().exp()
    first = kmeans(inputs, 8)
    left = x.tanh() - first[nearest_code(inputs[None], first[None])[0][0]] * torch.tensor(2.0).log().exp()
    second = kmeans(left / torch.tensor(0.5).log().exp(), 8)
    assert torch.equal(residual.quantizers[0].codebook, first)
    assert torch.equal(residual.quantizers[1].codebook, second)


def test_a_shared_codebook_starts_from_all_of_its_places() -> None:
    """Residual: vectors and residuals together; grouped: the rows of all groups; scales: the cells of all."""
    x = batch(200)
    torch.manual_seed(3)
    first = kmeans(x, 8)
    left = x - first[nearest_code(x[None], first[None])[0][0]]
    both = torch.cat([x, left])
    part = VectorQuantizer(DIM, 8)
    torch.manual_seed(3)
    ResidualQuantizer(DIM, [part, part]).initialize_from(x)
    torch.manual_seed(3)
    kmeans(x, 8), kmeans(left, 8)
    assert torch.equal(part.codebook, kmeans(both, 8))

    torch.manual_seed(3)
    GroupedQuantizer(2 * DIM, [part, part]).initialize_from(x.reshape(100, 2 * DIM))
    torch.manual_seed(3)
    assert torch.equal(part.codebook, kmeans(torch.cat([x[::2], x[1::2]]), 8))


@pytest.mark.parametrize("shared", [True, False])
def test_scales_start_from_what_the_codes_of_the_scales_before_leave(shared: bool) -> None:
    """Each scale from its own cells; a shared codebook from the cells of both, which then weigh the same."""
    maps = batch(5, 8)
    parts = [VectorQuantizer(DIM, 4)] * 2 if shared else [VectorQuantizer(DIM, 4), VectorQuantizer(DIM, 4)]
    quantizer = MultiScaleQuantizer(DIM, parts, scales=(0.25, 1.0), axes=1, interpolation="nearest")
    torch.manual_seed(3)
    quantizer.initialize_from(maps)

    torch.manual_seed(3)
    means = maps.unflatten(1, (2, 4)).mean(2).reshape(-1, DIM)
    coarse = kmeans(means, 4)
    chosen = coarse[nearest_code(means[None], coarse[None])[0][0]]
    left = maps.reshape(-1, DIM) - chosen.repeat_interleave(4, 0)
    fine = kmeans(left, 4)
    both = kmeans(torch.cat([means.repeat(4, 1), left]), 4) if shared else None
    for part, expected in zip(parts, (both, both) if shared else (coarse, fine), strict=True):
        # Up to the roundings of a mean of four, of a difference, and of k-means on them.
        torch.testing.assert_close(part.codebook.detach(), expected, rtol=0, atol=100 * EPS)


@examples(10)
@given(seed=st.integers(0, 999), count=st.integers(1, 4))
def test_a_scale_of_fewer_vectors_than_codes_starts_from_these_vectors(seed: int, count: int) -> None:
    """Each is a code, the other codes lie beside them, and no two are equal."""
    parts = [VectorQuantizer(DIM, 12) for _ in range(2)]
    quantizer = MultiScaleQuantizer(DIM, parts, scales=(0.25, 1.0), axes=1)
    maps = batch(count, 4, seed=seed)
    quantizer.initialize_from(maps)
    means, codes = maps.mean(1), parts[0].codebook.detach()
    distances = (codes[:, None] - means).norm(dim=-1)
    assert (distances.amin(0) <= 16 * EPS * means.abs().max()).all()
    spread = (means - means.mean(0)).square().sum(-1).mean().sqrt() if count > 1 else means.norm()
    assert (distances.amin(1) <= 1.01e-3 * spread).all()
    assert len(codes.unique(dim=0)) == 12


def test_a_shared_codebook_has_codes_for_every_scale() -> None:
    """However much smaller the residuals are from scale to scale, and however few the coarse cells."""
    torch.manual_seed(0)
    values = [scale * torch.randn(8, DIM) for scale in (4.0, 1.0, 0.25)]
    cells = [codes[torch.randint(8, (64, number))] for codes, number in zip(values, (1, 4, 16), strict=True)]
    maps = sum(each.repeat_interleave(16 // each.shape[1], 1) for each in cells)
    quantizer = MultiScaleQuantizer(
        DIM, [VectorQuantizer(DIM, 48)] * 3, scales=(1 / 16, 1 / 4, 1.0), axes=1, interpolation="nearest"
    )
    quantizer.initialize_from(maps)
    indices = quantizer.encode(maps)
    rows = to_rows(maps, None, DIM, -1)
    for _, z, chosen in quantizer.learned_rows(rows, indices):
        left = (z - quantizer.quantizers[0].decode(chosen)).square().sum()
        assert left < 0.5 * (z - z.mean(0)).square().sum()


# Maps behind a basis


@pytest.mark.parametrize("transform", ["linear", "diagonal", "affine", "bridge"])
def test_a_map_that_has_moved_becomes_the_identity(transform: str) -> None:
    built = VQBridge(8, DIM, patch_size=4, width=8, blocks=1, gate=0.5) if transform == "bridge" else transform
    quantizer, x = SimVQ(DIM, 8, transform=built), batch(60)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in quantizer.transform.parameters():
            parameter.add_(0.3)
    torch.manual_seed(1)
    quantizer.initialize_from(x)
    torch.manual_seed(1)
    expected = kmeans(x, 8)
    assert torch.equal(quantizer.basis, expected)
    assert torch.equal(quantizer.codebook, expected)
    loss = quantizer(x).loss
    loss.backward()
    learned = [p for p in quantizer.transform.parameters() if p.grad is not None and p.grad.any()]
    assert learned, "no gradient reaches the map"


def test_a_map_without_an_identity_is_refused_before_anything_moves() -> None:
    quantizer = SimVQ(DIM, 8, transform=nn.Linear(DIM, DIM))
    before = state_of(quantizer)
    with pytest.raises(ValueError, match="transform is Linear, which has no method to_identity"):
        quantizer.initialize_from(batch(60))
    assert_same_state(before, state_of(quantizer))


@pytest.mark.parametrize("name", ["vq", "ema_vq", "residual", "qinco"])
def test_no_vector_that_counts_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="expected a vector on at least one rank"):
        Case(name).build().initialize_from(torch.full((4, DIM), torch.nan))
    with pytest.raises(ValueError, match=f"expected dim={DIM}"):
        Case(name).build().initialize_from(torch.ones(4, DIM + 1))
