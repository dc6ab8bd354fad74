"""`final_means`: codes become the means of the vectors that chose them, and nothing else is touched."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from quantizers import EMAVectorQuantizer, VectorQuantizer, final_means
from tests.cases import DIM, Case, assert_same_state, batch, cases_where, state_of
from tests.effort import examples
from tests.versions import text_of

EPS = torch.finfo(torch.float32).eps


def is_mean(case: Case) -> bool:
    return case.sample.has_table and case.choice == "nearest"


@examples(20)
@given(
    size=st.integers(1, 20),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=3),
    offset=st.sampled_from([0.0, 1.0, 1000.0]),
    seed=st.integers(0, 999),
)
def test_codes_become_means_and_the_error_never_grows(
    size: int, sizes: list[int], offset: float, seed: int
) -> None:
    """Lloyd: the mean is the best code of its vectors, and a new search can only lower the error."""
    torch.manual_seed(seed)
    batches = [offset + torch.randn(count, DIM) for count in sizes]
    quantizer = EMAVectorQuantizer(DIM, size)
    quantizer.set_codebook(offset + torch.randn(size, DIM))
    old = quantizer.embedding.clone()
    x = torch.cat(batches)
    indices = quantizer.encode(x)
    final_means(quantizer, batches)
    codes = quantizer.embedding.double()
    counts = indices.bincount(minlength=size)
    sums = torch.zeros(size, DIM, dtype=torch.float64).index_add_(0, indices, x.double())
    means = sums[counts > 0] / counts[counts > 0, None]
    # The differences from the code, of at most 20, round once each, as do their sums, one in each batch, and their
    # mean; the sum of code and mean rounds relative to the code.
    bound = EPS * (20 * (2 + len(sizes)) + offset + 10)
    assert (codes[counts > 0] - means).abs().max() <= bound
    assert torch.equal(quantizer.embedding[counts == 0], old[counts == 0])

    def error() -> float:
        found = quantizer.embedding.double()[quantizer.encode(x)]
        return float((x.double() - found).square().sum(-1).mean())

    after = error()
    quantizer.embedding.copy_(old)
    # Around the mean, the error grows by the square of the bound; float32 distances choose among equals.
    assert after <= error() + DIM * bound**2 + 64 * EPS * (offset + 10) ** 2 * EPS


@cases_where(is_mean)
def test_only_chosen_codes_change(case: Case) -> None:
    """And on a second pass over the same batches, the assignment being the same, hardly those."""
    torch.manual_seed(0)
    quantizer = case.build()
    quantizer.train()
    x = batch(20)
    before, chosen = state_of(quantizer), quantizer.encode(x).unique()
    size = state_of(quantizer).get("cluster_size")
    final_means(quantizer, [x[:10], x[10:]])
    after = state_of(quantizer)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved <= {"embedding", "embedding_sum"}
    stays = torch.ones(quantizer.codebook_size, dtype=torch.bool)
    stays[chosen] = False
    for name in moved:
        assert torch.equal(before[name][stays], after[name][stays])
    assert ("embedding" in moved) == (not quantizer.frozen)
    assert quantizer.training
    if size is not None:
        assert torch.equal(quantizer.cluster_size, size)
    if case.distance == "cosine":
        torch.testing.assert_close(quantizer.codebook.norm(dim=-1), torch.ones(quantizer.codebook_size))


@pytest.mark.parametrize("shared", [False, True])
def test_each_stage_gets_what_the_earlier_ones_left(shared: bool) -> None:
    torch.manual_seed(0)
    quantizer = quantizers.create("residual", dim=DIM, codebook_size=8, num_quantizers=2, shared=shared)
    x = batch(50)
    indices = quantizer.encode(x)
    first, _ = (part.codebook.detach().clone() for part in quantizer.components)
    left = x - first[indices[:, 0]]
    final_means(quantizer, [x])
    seen = [(x, indices[:, 0]), (left, indices[:, 1])]
    for number, part in enumerate(quantizer.components):
        vectors, chosen = map(torch.cat, zip(*seen, strict=True)) if shared else seen[number]
        for code in chosen.unique():
            mean = vectors[chosen == code].mean(0)
            torch.testing.assert_close(part.codebook[code].detach(), mean, rtol=0, atol=200 * EPS)


class Model(nn.Module):
    """Everything that evaluation changes: dropout, batch statistics; and a quantizer before another one."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM), nn.Dropout(0.5))
        self.coarse, self.fine = EMAVectorQuantizer(DIM, 8), VectorQuantizer(DIM, 8)

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        return self.fine(z - self.coarse(z).quantized).quantized


def test_the_model_runs_in_evaluation_mode_and_all_else_stays() -> None:
    torch.manual_seed(0)
    model, x = Model(), batch(60)
    model.eval()
    z = model.encoder(x).detach()
    indices = model.coarse.encode(z)
    model.train()
    model.coarse.register_code_hook(lambda *_: pytest.fail("a hook got a forward that is not the user's"))
    before, generator = state_of(model), torch.get_rng_state()  # type: ignore[arg-type]
    final_means(model, iter([(x[:40], 0), (x[40:], 1)]))
    after = state_of(model)  # type: ignore[arg-type]
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"coarse.embedding", "coarse.embedding_sum", "fine.embedding"}
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(module.training for module in model.modules())
    code = int(indices[0])
    torch.testing.assert_close(model.coarse.codebook[code], z[indices == code].mean(0), rtol=0, atol=64 * EPS)


def test_frozen_codes_stay_and_those_of_products_too() -> None:
    model = nn.Sequential(VectorQuantizer(DIM, 8).freeze())
    products = quantizers.create("ibq", dim=DIM, codebook_size=8)
    for each in (model, products):
        before = state_of(each)
        final_means(each, [batch(30)], forward=lambda model, x: model(x))
        assert_same_state(before, state_of(each))


def test_what_does_not_count_and_what_overflows() -> None:
    """Masked vectors and such that are not finite; a code whose sum leaves float32 keeps its place."""
    x, mask = batch(30), torch.arange(30) < 20
    x[:5], x[25:] = torch.nan, 1e6
    quantizer = VectorQuantizer(DIM, 1)
    final_means(quantizer, [{"x": x, "mask": mask}])
    torch.testing.assert_close(quantizer.codebook[0].detach(), x[5:20].mean(0), rtol=0, atol=64 * EPS)
    huge = VectorQuantizer(1, 1)
    before = state_of(huge)
    final_means(huge, [torch.full((4, 1), 3e38)])
    assert_same_state(before, state_of(huge))


def test_what_cannot_be_is_said() -> None:
    model = Model()
    before = state_of(model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no vector chose a code of 'fine', expected batches"):
        final_means(model, [batch(9)], forward=lambda model, x: model.coarse(x))
    with pytest.raises(ValueError, match="no vector chose a code of 'coarse', 'fine'"):
        final_means(model, [])
    with pytest.raises(ValueError, match="model is Linear, which has no codes"):
        final_means(nn.Linear(DIM, DIM), [batch(9)])
    with pytest.raises(TypeError, match="batches is a Tensor, expected an iterable"):
        final_means(model, batch(9))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        final_means(model, [batch(9), torch.ones(3, DIM + 1)])
    assert "\nfinal_means called Model.forward(x)" in text_of(caught.value)
    assert_same_state(before, state_of(model))  # type: ignore[arg-type]
