"""Groups and heads that are left out, by number and by dropout, as laws: prefixes, depths, and what learns."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from quantizers.core.truncatable import TruncatableQuantizer
from tests.cases import assert_same_state, normal, state_of
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
WIDTH, SIZE, PARTS = 2, 8, 3
DIM = WIDTH * PARTS
seeds = st.integers(0, 2**31)
few = examples(10)

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "groups": ("grouped", {"quantizer": "vq", "num_groups": PARTS}),
    "averages": ("grouped", {"quantizer": "ema_vq", "num_groups": PARTS, "decay": 0.75}),
    "one codebook": ("grouped", {"quantizer": "vq", "num_groups": PARTS, "shared": True}),
    "heads": ("multihead", {"num_heads": PARTS}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def built(kind: str, seed: int = 0, parts: int = PARTS, **options: Any) -> TruncatableQuantizer:
    """Of so many groups or heads of two channels each, in float64, from a seed."""
    torch.manual_seed(seed)
    name, own = KINDS[kind]
    number = "num_heads" if name == "multihead" else "num_groups"
    sizes = {"dim": WIDTH * parts, "codebook_size": SIZE}
    quantizer = quantizers.create(name, **{**sizes, **own, number: parts, **options}).double()
    assert isinstance(quantizer, TruncatableQuantizer)
    return quantizer


def first_parts(quantizer: TruncatableQuantizer, kind: str, count: int) -> TruncatableQuantizer:
    """A quantizer of copies of the first groups or heads alone."""
    shorter = built(kind, parts=count).train(quantizer.training)
    state = quantizer.state_dict()
    if kind == "heads":
        state["embedding"] = state["embedding"][:count]
    own = {name: state.get(name, value) for name, value in shorter.state_dict().items() if "index" not in name}
    shorter.load_state_dict(own, strict=False)
    return shorter


def kept(indices: Tensor) -> Tensor:
    """The number of parts that each vector kept; those left out are the last."""
    count = (indices >= 0).sum(-1)
    assert torch.equal(indices >= 0, torch.arange(indices.shape[-1]) < count[..., None])
    return count


# Prefixes


@every_kind
@few
@given(seed=seeds, count=st.integers(1, PARTS), training=st.booleans())
def test_a_forward_of_the_first_codebooks_is_that_of_their_quantizer(
    kind: str, seed: int, count: int, training: bool
) -> None:
    """Value, indices, gradients and state; the loss is their share of the mean over all channels."""
    quantizer = built(kind, seed).train(training)
    shorter, z = first_parts(quantizer, kind, count), normal(seed, 15, DIM)
    whole, part = z.clone().requires_grad_(), z[:, : WIDTH * count].clone().requires_grad_()
    assert torch.equal(quantizer.encode(z, num_codebooks=count), shorter.encode(part))
    assert torch.equal(quantizer.encode(z)[:, :count], shorter.encode(part))
    decoded = quantizer.decode(quantizer.encode(z, num_codebooks=count))
    found, expected = quantizer(whole, num_codebooks=count), shorter(part)
    assert torch.equal(found.quantized, decoded)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.quantized[:, : WIDTH * count], expected.quantized)
    assert not found.quantized[:, WIDTH * count :].any()
    torch.testing.assert_close(found.loss, expected.loss * count / PARTS, rtol=16 * EPS, atol=0)
    (found.quantized.square().sum() + found.loss).backward()
    (expected.quantized.square().sum() + expected.loss * count / PARTS).backward()
    torch.testing.assert_close(whole.grad[:, : WIDTH * count], part.grad, rtol=16 * EPS, atol=EPS)
    assert not whole.grad[:, WIDTH * count :].any()
    if kind == "heads":
        assert not quantizer.get_parameter("embedding").grad[count:].any()
    else:
        for used, own in zip(quantizer.groups, shorter.groups, strict=False):
            assert_same_state(state_of(used), state_of(own))


@few
@given(seed=seeds, count=st.integers(1, PARTS))
def test_groups_that_are_not_asked_for_do_not_move(seed: int, count: int) -> None:
    quantizer = built("averages", seed)
    behind = [state_of(group) for group in quantizer.groups[count:]]
    quantizer(normal(seed, 15, DIM), num_codebooks=count)
    for group, before in zip(quantizer.groups[count:], behind, strict=True):
        assert_same_state(state_of(group), before)


@pytest.mark.parametrize("count", [0, 4, -1])
@every_kind
def test_a_number_of_codebooks_that_is_not_there_is_named(kind: str, count: int) -> None:
    quantizer, x = built(kind), normal(0, 5, DIM)
    for method in (quantizer, quantizer.encode):
        with pytest.raises(ValueError, match=rf"num_codebooks is {count}, expected one of \[1, 2, 3\]"):
            method(x, num_codebooks=count)
    if count >= 0:
        with pytest.raises(
            ValueError, match=rf"indices have {count} columns on the last axis, expected one of \["
        ):
            quantizer.decode(torch.zeros(5, count, dtype=torch.int64))


def test_only_whole_groups_can_be_asked_for() -> None:
    stages = {"quantizer": "residual", "num_quantizers": 2, "num_groups": 2, "codebook_size": SIZE}
    for shared in (False, True):
        quantizer, x = quantizers.create("grouped", dim=4, shared=shared, **stages), torch.randn(5, 4)
        assert torch.equal(quantizer.encode(x, num_codebooks=2), quantizer.encode(x)[:, :2])
        assert torch.equal(quantizer(x, num_codebooks=2).indices, quantizer.encode(x)[:, :2])
        for count in (1, 3, 5):
            with pytest.raises(ValueError, match=rf"num_codebooks is {count}, expected one of \[2, 4\]"):
                quantizer.encode(x, num_codebooks=count)


def test_what_is_left_out_is_zero_before_the_projection() -> None:
    groups = [quantizers.VectorQuantizer(2, SIZE), quantizers.VectorQuantizer(1, SIZE)]
    quantizer, x = quantizers.GroupedQuantizer(5, groups).eval(), torch.randn(7, 5)
    out = quantizer(x, num_codebooks=1)
    codes = torch.cat([groups[0].decode(out.indices[:, 0]), torch.zeros(7, 1)], -1)
    assert torch.equal(out.quantized, quantizer.project_out(codes))
    assert torch.equal(quantizer.decode(out.indices), out.quantized)


# Dropout


@every_kind
def test_a_sample_keeps_its_first_parts_uniformly_many(kind: str) -> None:
    """Pearson's χ² of three classes has two degrees of freedom: above 13.8 with probability 10⁻³, of one seed."""
    samples = 900
    counts = kept(built(kind, dropout=1.0)(normal(0, samples, 2, DIM)).indices)
    assert torch.equal(counts[:, 0], counts[:, 1])
    found = torch.bincount(counts[:, 0], minlength=PARTS + 1)[1:].double()
    assert found.sum() == samples
    assert ((found - samples / PARTS) ** 2 / (samples / PARTS)).sum() < 13.8


@every_kind
def test_dropout_falls_on_its_share_of_the_samples(kind: str) -> None:
    """With probability ½ · ⅔ a sample keeps fewer than all: within five standard deviations."""
    fewer = (kept(built(kind, dropout=0.5)(normal(0, 900, 1, DIM)).indices) < PARTS).double().mean()
    assert abs(fewer - 1 / 3) < 5 * (2 / 9 / 900) ** 0.5


@every_kind
def test_a_batch_keeps_as_many_throughout(kind: str) -> None:
    quantizer, x = built(kind, dropout=1.0, dropout_by="batch"), normal(0, 5, 2, DIM)
    counts = [kept(quantizer(x).indices).unique() for _ in range(30)]
    assert all(len(count) == 1 for count in counts)
    assert set(map(int, counts)) == {1, 2, 3}


@every_kind
@pytest.mark.parametrize("shape", [(), (0,), (7,), (0, 3), (4, 3), (2, 3, 2)], ids=str)
def test_dropout_at_any_shape(kind: str, shape: tuple[int, ...]) -> None:
    quantizer, z = built(kind, dropout=1.0), normal(0, *shape, DIM)
    decoding = copy.deepcopy(quantizer)
    out = quantizer(z)
    kept(out.indices)
    assert torch.equal(decoding.decode(out.indices), out.quantized)


@few
@given(seed=seeds)
def test_groups_left_out_leave_no_trace(seed: int) -> None:
    """Loss, averages and gradient of a group are those of the vectors that reached it."""
    quantizer = built("averages", seed, dropout=1.0)
    alone, z = copy.deepcopy(quantizer), normal(seed, 30, DIM).requires_grad_()
    out = quantizer(z)
    counts, losses = kept(out.indices), []
    (out.quantized.sum() + out.loss).backward()
    for place, (group, before) in enumerate(zip(quantizer.groups, alone.groups, strict=True)):
        channels = slice(WIDTH * place, WIDTH * (place + 1))
        losses.append(before(z[counts > place, channels]).loss / PARTS)
        assert not z.grad[counts <= place, channels].any()
        assert not out.quantized[counts <= place, channels].any()
        after = state_of(group)
        for name, value in state_of(before).items():  # the same vectors, summed in another order
            torch.testing.assert_close(after[name], value, rtol=64 * EPS, atol=64 * EPS)
    torch.testing.assert_close(out.loss, sum(losses), rtol=64 * EPS, atol=0)


@few
@given(seed=seeds)
def test_a_shared_codebook_learns_from_all_that_reached_it(seed: int) -> None:
    quantizer = built("one codebook", seed, dropout=1.0)
    alone, z = copy.deepcopy(quantizer.groups[0]), normal(seed, 30, DIM)
    out = quantizer(z)
    reached = z.reshape(30, PARTS, WIDTH)[out.indices >= 0]
    expected = alone(reached).loss
    torch.testing.assert_close(out.loss, expected, rtol=64 * EPS, atol=0)
    for loss in (out.loss, expected):
        loss.backward()
    found, own = quantizer.groups[0].get_parameter("embedding").grad, alone.get_parameter("embedding").grad
    torch.testing.assert_close(found, own, rtol=64 * EPS, atol=64 * EPS)


@few
@given(seed=seeds, by=st.sampled_from(["sample", "batch"]))
def test_heads_are_groups_with_dropout_too(seed: int, by: str) -> None:
    """The same draws, values, losses and gradients."""
    heads, groups = (built(kind, dropout=1.0, dropout_by=by) for kind in ("heads", "groups"))
    codes = normal(seed, PARTS, SIZE, WIDTH)
    heads.set_codebook(codes)  # type: ignore[operator]
    for group, own in zip(groups.groups, codes, strict=True):
        group.set_codebook(own)  # type: ignore[operator]
    results = []
    for quantizer in (heads, groups):
        torch.manual_seed(seed)
        z = normal(seed + 1, 20, DIM).requires_grad_()
        out = quantizer(z)
        (out.quantized.square().sum() + out.loss).backward()
        results.append((out.indices, out.quantized, out.loss, z.grad))
    torch.testing.assert_close(*results, rtol=64 * EPS, atol=64 * EPS)
    own = torch.stack([group.get_parameter("embedding").grad for group in groups.groups])
    torch.testing.assert_close(heads.get_parameter("embedding").grad, own, rtol=64 * EPS, atol=64 * EPS)


@every_kind
def test_evaluation_keeps_all(kind: str) -> None:
    x, evaluated = normal(0, 20, DIM), built(kind, dropout=1.0).eval()
    assert (kept(built(kind)(x).indices) == PARTS).all()
    assert (kept(evaluated(x).indices) == PARTS).all()
    assert (kept(evaluated.train().encode(x)) == PARTS).all()


@every_kind
def test_wrong_dropout_is_named(kind: str) -> None:
    for options, message in (
        ({"dropout": 1.5}, "dropout is 1.5, expected a probability"),
        ({"dropout_by": "vector"}, "dropout_by is 'vector', expected 'sample' or 'batch'"),
    ):
        with pytest.raises(ValueError, match=message):
            built(kind, **options)
