"""QINCo (Huijben et al. 2024) as laws: the search, the loss and its gradient, residual quantization inside it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from benchmarks.allocations import largest_allocation
from quantizers import QINCo
from quantizers.kernels.implicit import reference
from quantizers.kernels.implicit.operation import nearest_implicit_code
from tests.cases import batch, normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)


def small(seed: int = 0, **options: int | float) -> QINCo:
    """Of three stages, in float64, from a seed."""
    torch.manual_seed(seed)
    return QINCo(3, 8, **{"num_quantizers": 3, "hidden_dim": 5, "blocks": 2, **options}).double()  # type: ignore[arg-type]


def dense(quantizer: QINCo, z: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The indices and the reconstruction after each stage, all K codes of all vectors in one tensor."""
    reconstruction, found, reconstructions = torch.zeros_like(z), [], []
    for number, stage in enumerate(quantizer.steps):
        codes = stage.codes.expand(len(z), -1, -1)
        if number:
            context = reconstruction[:, None].expand_as(codes)
            codes = codes + F.linear(torch.cat([codes, context], -1), *stage.concatenation())
            for up, down in zip(stage.up, stage.down, strict=True):
                codes = codes + F.linear(F.linear(codes, up.weight).relu(), down.weight)
        distances = (z[:, None] - reconstruction[:, None] - codes).square().sum(-1)
        indices = distances.argmin(-1) if chosen is None else chosen[:, number]
        reconstruction = reconstruction + codes[torch.arange(len(z)), indices]
        found.append(indices)
        reconstructions.append(reconstruction)
    return torch.stack(found, -1), reconstructions


# The search


@examples(15)
@given(seed=seeds, n=st.integers(1, 12), blocks=st.integers(0, 2), budget=st.sampled_from([1, 100, 2**20]))
def test_a_vector_gets_the_nearest_of_its_own_codes(seed: int, n: int, blocks: int, budget: int) -> None:
    quantizer, z = small(seed, blocks=blocks), normal(seed, n, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "BUDGET", budget)
        indices, quantized = quantizer.encode(z), quantizer(z).quantized
    expected, reconstructions = dense(quantizer, z)
    assert torch.equal(indices, expected)  # a tie within 10⁻¹³ of random numbers would be a wonder
    torch.testing.assert_close(quantized, reconstructions[-1], rtol=1e-12, atol=1e-12)


@given(seed=seeds)
@examples(10)
def test_equal_codes_go_to_the_lowest_index(seed: int) -> None:
    quantizer = small(seed)
    with torch.no_grad():
        for stage in quantizer.steps:
            stage.codes.copy_(stage.codes[:4].repeat(2, 1))
    assert (quantizer.encode(normal(seed, 20, 3)) < 4).all()


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e10, 1e30])
def test_the_search_is_exact_at_any_offset(offset: float) -> None:
    """In float32: what is far away takes the code that lies furthest in its direction, argmax t·f − ‖f‖²/2."""
    torch.manual_seed(0)
    stage = QINCo(3, 50, num_quantizers=2, hidden_dim=5).steps[1]
    targets, context = batch(20)[:, :3] + offset, batch(20, seed=1)[:, :3]
    with torch.no_grad():
        codes = torch.stack([stage(torch.full((20,), k), context) for k in range(50)], 1).double()
    scores = (codes * targets[:, None]).sum(-1) - codes.square().sum(-1) / 2
    best, second = scores.topk(2).values.unbind(-1)
    # f in float32 is a dozen products of up to eight terms off, times its layers' slopes.
    clear = best - second > 2.0**-16 * (1 + codes.abs().max()) * (targets.abs().amax(-1) + codes.abs().max())
    assert clear.sum() > 10
    assert torch.equal(stage.nearest(targets, context)[clear], scores.argmax(-1)[clear])


def test_no_tensor_of_the_search_is_larger_than_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    n, size = 512, 256
    weights = [normal(0, 4, 8), normal(1, 4), [normal(2, 16, 4), normal(3, 4, 16)]]
    tensors = (normal(4, n, 4), normal(5, n, 4), normal(6, size, 4))
    assert largest_allocation(lambda: nearest_implicit_code(*tensors, *weights)) >= n * size * 4  # room for all
    monkeypatch.setattr(reference, "BUDGET", 2**14)
    assert largest_allocation(lambda: nearest_implicit_code(*tensors, *weights)) <= 8 * 2**14


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not")  # opcheck in torch 2.15
def test_the_registered_operation() -> None:
    arguments = (normal(4, 5, 4), normal(5, 5, 4), normal(6, 7, 4).requires_grad_(), normal(0, 4, 8), normal(1, 4))
    blocks = [normal(2, 16, 4), normal(3, 4, 16)]
    torch.library.opcheck(torch.ops.quantizers.nearest_implicit_code.default, (*arguments, blocks))
    with pytest.raises(ValueError, match="blocks contains 1 weights, expected two per block"):
        nearest_implicit_code(*arguments, blocks[:1])
    with pytest.raises(ValueError, match=r"context has shape \(4, 4\), expected \(5, 4\)"):
        nearest_implicit_code(arguments[0], arguments[1][:4], *arguments[2:], blocks)
    with pytest.raises(ValueError, match="got 4 channels in targets but 3 in codes"):
        nearest_implicit_code(*arguments[:2], arguments[2][:, :3], *arguments[3:], blocks)


# The loss


@examples(15)
@given(
    seed=seeds,
    n=st.integers(1, 10),
    commitment=st.sampled_from([0.0, 0.25]),
    codebook=st.sampled_from([0.0, 1.0]),
)
def test_the_loss_and_its_gradient_are_those_of_every_stage(
    seed: int, n: int, commitment: float, codebook: float
) -> None:
    """Against the dense computation: a later stage's error also moves the codes and the networks before it."""
    quantizer = small(seed, commitment_weight=commitment, codebook_weight=codebook)
    z, g = normal(seed, n, 3).requires_grad_(), normal(seed + 1, n, 3)
    out = quantizer(z)
    inputs = [z, *quantizer.parameters()]
    total = out.loss + (out.quantized * g).sum()
    actual = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)

    _, stages = dense(quantizer, z.detach(), out.indices)
    loss = sum(
        codebook * (z.detach() - stage).square().mean() + commitment * (z - stage.detach()).square().mean()
        for stage in stages
    )
    expected = torch.autograd.grad(loss + (z * g).sum(), inputs, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(out.loss, loss, rtol=1e-12, atol=1e-12)
    for a, b in zip(actual, expected, strict=True):
        # Some hundred roundings, which the layers' slopes, a few units each, carry on.
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_step_moves_the_codes_that_nobody_chose() -> None:
    """Not c, but f(c, x̂): the network is one for all codes of its stage. The first stage has none."""
    quantizer, z = small(), normal(1, 2, 3)
    stage, context = quantizer.steps[1], normal(2, 1, 3).expand(8, 3)
    unused = torch.bincount(quantizer.encode(z)[:, 1], minlength=8) == 0
    before, first = stage(torch.arange(8), context).detach(), quantizer.codebook[0].detach().clone()
    indices = quantizer.encode(z)[:, 0]
    quantizer(z).loss.backward()
    torch.optim.SGD(quantizer.parameters(), lr=0.1).step()
    assert (stage(torch.arange(8), context) != before).any(-1)[unused].all()
    moved = (quantizer.codebook[0] != first).any(-1)
    assert moved.sum() == len(indices.unique())


# Plain residual quantization


@examples(10)
@given(seed=seeds)
def test_without_its_network_it_is_residual_quantization(seed: int) -> None:
    quantizer = small(seed)
    with torch.no_grad():
        for stage in quantizer.steps[1:]:
            for weight in (*stage.concatenation.parameters(), *stage.down.parameters()):
                weight.zero_()
    z = normal(seed, 20, 3)
    residual, indices = z, []
    for codes in quantizer.codebook:
        indices.append(torch.cdist(residual, codes, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1))
        residual = residual - codes[indices[-1]]
    out = quantizer(z)
    assert torch.equal(out.indices, torch.stack(indices, -1))
    torch.testing.assert_close(out.quantized, z - residual, rtol=8 * EPS, atol=8 * EPS)


# Decoding


def test_the_first_indices_are_a_code_of_a_lower_rate() -> None:
    """Index −1 adds nothing; all of them −1 is no code."""
    quantizer, z = small(), normal(1, 20, 3)
    out = quantizer(z)
    _, stages = dense(quantizer, z)
    assert torch.equal(quantizer.decode(out.indices), out.quantized)
    for number, expected in enumerate(stages, start=1):
        indices = out.indices.where(torch.arange(3) < number, -1)
        torch.testing.assert_close(quantizer.decode(indices), expected, rtol=1e-12, atol=1e-12)
    assert (quantizer.decode(torch.full((2, 3), -1)) == 0).all()
    skipped = quantizer.decode(torch.tensor([[1, -1, 2]]))
    first = quantizer.codebook[0, 1:2]
    torch.testing.assert_close(skipped, first + quantizer.steps[2](torch.tensor([2]), first))


def test_decode_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"indices have shape \(4, 2\), expected 3 on the last axis"):
        small().decode(torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(IndexError, match="indices range from 0 to 8, expected 0 to 7"):
        small().decode(torch.tensor([[0, 8, 1]]))
    with pytest.raises(ValueError, match="num_quantizers is 0, expected an integer of at least 1"):
        QINCo(3, 8, num_quantizers=0)
    with pytest.raises(ValueError, match="blocks is -1, expected an integer of at least 0"):
        QINCo(3, 8, blocks=-1)


# Learning


def stage_errors(quantizer: QINCo, z: Tensor) -> Tensor:
    """The mean squared error after each stage, [M]."""
    indices, errors = quantizer.encode(z), []
    for number in range(1, quantizer.num_codebooks + 1):
        first = indices.where(torch.arange(quantizer.num_codebooks) < number, -1)
        errors.append((quantizer.decode(first) - z).square().mean())
    return torch.stack(errors).detach()


def test_on_data_that_it_has_learned_each_stage_lowers_the_error() -> None:
    torch.manual_seed(0)
    quantizer = QINCo(4, 16, num_quantizers=3, hidden_dim=32, blocks=1)
    z = batch(256)
    before = stage_errors(quantizer, z)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        quantizer(z).loss.backward()
        optimizer.step()
    after = stage_errors(quantizer, z)
    assert (after[1:] < 0.7 * after[:-1]).all()
    assert (after < before).all()
