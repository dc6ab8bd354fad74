"""Maps of a whole codebook, as laws: what a step on them moves, and by which gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from quantizers import SimVQ, VQBridge
from quantizers.codebooks.simvq import Affine
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)


# Affine


@examples(15)
@given(seed=seeds, n=st.integers(1, 12), weight=st.sampled_from([0.5, 1.0]))
def test_affine_gradient_is_a_sum_over_the_chosen_codes(seed: int, n: int, weight: float) -> None:
    """Of mean (z − c ⊙ s − m)²: 2/(nD) Σ r ⊙ c in s and 2/(nD) Σ r in m, with r = c ⊙ s + m − z."""
    quantizer = quantizers.create(
        "affine_vq", dim=3, codebook_size=16, commitment_weight=0.0, codebook_weight=weight
    ).double()
    with torch.no_grad():
        quantizer.transform.scale.copy_(1 + 0.3 * normal(seed, 3))
        quantizer.transform.shift.copy_(normal(seed + 1, 3))
    z = normal(seed + 2, n, 3)
    out = quantizer(z)
    out.loss.backward()
    chosen = quantizer.basis.detach()[out.indices]
    scale, shift = quantizer.transform.scale.detach(), quantizer.transform.shift.detach()
    terms = weight * 2 / (n * 3) * (chosen * scale + shift - z)
    # Each term is four roundings off, and a sum of n terms n − 1 more; sums that cancel have the terms' own size.
    for parameter, expected in ((quantizer.transform.scale, terms * chosen), (quantizer.transform.shift, terms)):
        tolerance = (n + 8) * EPS * float((terms.abs() * (1 + chosen.abs())).sum() + 1)
        torch.testing.assert_close(parameter.grad, expected.sum(0), rtol=0, atol=tolerance)


@examples(10)
@given(seed=seeds)
def test_a_step_on_the_affine_map_moves_every_code(seed: int) -> None:
    """By one law for all: e' − e = c ⊙ Δs + Δm, chosen or not; the basis of a code nobody chose stays."""
    quantizer = quantizers.create("affine_vq", dim=3, codebook_size=32).double()
    with torch.no_grad():
        quantizer.basis.copy_(normal(seed, 32, 3))
    z = normal(seed + 1, 4, 3)
    before, basis = quantizer.codebook.detach().clone(), quantizer.basis.detach().clone()
    unused = torch.bincount(quantizer.encode(z), minlength=32) == 0
    assert unused.any()
    quantizer(z).loss.backward()
    torch.optim.SGD(quantizer.parameters(), lr=0.1).step()
    moved = quantizer.codebook.detach() - before
    assert (moved != 0).any(-1).all()
    assert torch.equal(quantizer.basis[unused], basis[unused])
    expected = basis * (quantizer.transform.scale - 1) + quantizer.transform.shift
    # A product, a sum, a difference, and the one of the scale that is near 1.
    atol = 8 * EPS * float(1 + basis.abs().max() * 2)
    torch.testing.assert_close(moved[unused], expected[unused].detach(), rtol=0, atol=atol)


def test_the_affine_map_starts_as_the_identity() -> None:
    codes = normal(0, 8, 3)
    assert torch.equal(Affine(3).double()(codes), codes)


# VQBridge


def bridge_in_loops(bridge: VQBridge, codes: Tensor) -> Tensor:
    """The map written out: tokens one by one, attention by its softmax."""
    p, (size, dim) = bridge.patch_size, codes.shape
    patches = []
    for start in range(0, size, p):
        patch = codes.new_zeros(p, dim)
        patch[: min(p, size - start)] = codes[start : start + p]
        patches.append(bridge.compress(patch.flatten()))
    tokens = torch.stack(patches) + bridge.positions
    for block in bridge.blocks:
        query, key, value = block.to_qkv(block.attention_norm(tokens)).chunk(3, dim=-1)
        heads = []
        for q, k, v in zip(*(part.chunk(block.heads, dim=-1) for part in (query, key, value)), strict=True):
            heads.append((q @ k.T / q.shape[1] ** 0.5).softmax(-1) @ v)
        tokens = tokens + block.from_heads(torch.cat(heads, dim=-1))
        tokens = tokens + block.mlp(block.mlp_norm(tokens))
    recovered = [bridge.recover(bridge.norm(token)).unflatten(0, (p, dim)) for token in tokens]
    return codes + bridge.gate * torch.cat(recovered)[:size]


@examples(10)
@given(seed=seeds, size=st.integers(1, 20), patch_size=st.integers(1, 7), dim=st.integers(1, 5))
def test_the_bridge_is_the_map_written_out(seed: int, size: int, patch_size: int, dim: int) -> None:
    torch.manual_seed(seed)
    bridge = VQBridge(size, dim, patch_size=patch_size, width=8, heads=2, gate=0.7).double()
    codes, g = normal(seed, size, dim).requires_grad_(), normal(seed + 1, size, dim)
    inputs = [codes, *bridge.parameters()]
    actual, expected = bridge(codes), bridge_in_loops(bridge, codes)
    # A few hundred roundings in layers whose norms divide by spreads that chance makes no smaller than 10⁻³.
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    for a, b in zip(torch.autograd.grad(actual, inputs, g), torch.autograd.grad(expected, inputs, g), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("learned_basis", [False, True])
def test_each_step_on_the_bridge_moves_every_code(learned_basis: bool) -> None:
    """From the first step on, and if all vectors choose one code: no place in a patch waits for its own."""
    torch.manual_seed(0)
    quantizer = quantizers.create(
        "vqbridge", dim=3, codebook_size=37, patch_size=8, width=16, learned_basis=learned_basis
    ).double()
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    z = normal(1, 1, 3).expand(5, 3)
    for _ in range(3):
        before = quantizer.codebook.detach().clone()
        optimizer.zero_grad()
        out = quantizer(z)
        assert len(out.indices.unique()) == 1
        out.loss.backward()
        optimizer.step()
        assert (quantizer.codebook != before).any(-1).all()


def test_the_bridge_starts_as_the_identity() -> None:
    quantizer = quantizers.create("vqbridge", dim=3, codebook_size=37)
    assert torch.equal(quantizer.codebook, quantizer.basis)
    assert quantizer.basis.requires_grad


def test_codes_behind_the_bridge_are_the_same_bits_in_every_call() -> None:
    """Of any number of vectors, with gradients and without, so that decoding is exact."""
    quantizer = quantizers.create("vqbridge", dim=3, codebook_size=100, gate=1.0)
    expected = quantizer.codebook.detach()
    for rows in (1, 7, 300):
        quantized, indices, _ = quantizer(normal(rows, rows, 3, dtype=torch.float32))
        assert torch.equal(quantized, expected[indices])
        assert torch.equal(quantizer.decode(indices), quantized)
        with torch.no_grad():
            assert torch.equal(quantizer.eval().decode(indices), quantized)
            assert torch.equal(quantizer.train().codebook, expected)


def test_the_bridge_is_a_map_like_any_other() -> None:
    """Built by hand: what the registered name builds."""
    torch.manual_seed(0)
    named = quantizers.create("vqbridge", dim=6, codebook_size=20, code_dim=3, patch_size=4, commitment_weight=0.5)
    torch.manual_seed(0)
    built = SimVQ(
        6, 20, code_dim=3, transform=VQBridge(20, 3, patch_size=4), learned_basis=True, commitment_weight=0.5
    )
    built.load_state_dict(named.state_dict(), strict=True)
    x = torch.randn(9, 6)
    for a, b in zip(named(x), built(x), strict=True):
        assert torch.equal(a, b)


def test_a_bridge_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="width is 10, expected a multiple of heads=4"):
        VQBridge(8, 4, width=10)
    with pytest.raises(ValueError, match="patch_size is 0, expected an integer of at least 1"):
        VQBridge(8, 4, patch_size=0)
    with pytest.raises(ValueError, match=r"codes of shape \(9, 4\), expected \(8, 4\)"):
        _ = SimVQ(4, 9, transform=VQBridge(8, 4)).codebook
