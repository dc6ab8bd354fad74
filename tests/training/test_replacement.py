"""Replacement of unused codes: which, by what, what moves with them, and that all else stays."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import quantizers
from quantizers import AnchorUpdate, DeadCodeReplacement, EMAVectorQuantizer, Quantizer, VectorQuantizer
from quantizers.core.layout import to_rows
from quantizers.training.replacement import Replacement
from tests.cases import CASES, DIM, SIZE, Case, assert_same_state, batch, cases_where, every_case, state_of
from tests.effort import examples

EPS = torch.finfo(torch.float32).eps
REFUSED = "has no codes that can be replaced"

with_tables = cases_where(lambda case: case.has_tables)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    parameters = list(model.parameters()) or [nn.Parameter(torch.zeros(1))]
    return torch.optim.Adam(parameters, lr=1e-3, amsgrad=True)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, mask: Tensor | None = None) -> None:
    model.train()
    optimizer.zero_grad()
    out = model(x, mask)
    loss = out.loss + out.quantized.nan_to_num().square().mean()
    if loss.requires_grad:
        loss.backward()
        optimizer.step()


def rows_among(codes: Tensor, vectors: Tensor, tolerance: float = 0.0) -> bool:
    """Whether each code is one of the vectors."""
    return bool(((codes[:, None] - vectors[None]).abs().amax(-1) <= tolerance).any(1).all())


def far(count: int, seed: int = 0, offset: float = 50.0) -> Tensor:
    """Vectors so far from the first codes that few of those are ever chosen."""
    return offset + batch(count, seed=seed)


# Which codes, and by what


@examples(15)
@given(
    size=st.integers(1, 12),
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    threshold=st.sampled_from([0.0, 0.3, 0.9, 2.0]),
    decay=st.sampled_from([0.0, 0.5, 0.9]),
    distinct=st.integers(1, 8),
    seed=st.integers(0, 999),
)
def test_dead_codes_and_no_others_become_distinct_vectors(
    size: int, counts: list[int], threshold: float, decay: float, distinct: int, seed: int
) -> None:
    """With the running use, the least used first where vectors are too few, as counted in float64 beside it."""
    torch.manual_seed(seed)
    quantizer = EMAVectorQuantizer(2, size, decay=0.9)
    replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), threshold=threshold, decay=decay)
    use = torch.ones(size, dtype=torch.float64)
    values = torch.randn(distinct, 2)
    for count in counts:
        x = values[torch.randint(distinct, (count,))]
        indices = quantizer(x).indices
        kept = decay ** min(1.0, count / size)  # these decays remember fewer than LEAST_CHOICES of each code
        use = kept * use + (1 - kept) * size * indices.bincount(minlength=size) / count
        before = quantizer.embedding.clone()
        replaced = replacement.step()
        if ((use - threshold).abs() < 1e-5).any():
            return  # rounding decides
        dead = use < threshold
        moved = (quantizer.embedding != before).any(-1)
        assert replaced <= min(int(dead.sum()), len(x.unique(dim=0)))
        assert replaced == dead.sum() or replaced >= 1
        chosen = use.float().argsort(stable=True)
        # Which of two codes of nearly equal use comes first is up to rounding.
        if replaced == dead.sum():
            assert not (moved & ~dead).any()
        else:
            assert (use[moved] <= use[chosen[replaced - 1]] + 1e-5).all()
        assert moved.sum() <= replaced
        codes = quantizer.embedding[moved]
        assert rows_among(codes, x)
        assert len(codes.unique(dim=0)) == len(codes)
        now = replacement.state_dict()[""].double()
        restarted = (now == 1) & dead
        assert restarted.sum() >= replaced
        use = torch.where(restarted, 1.0, use)
        torch.testing.assert_close(now, use, rtol=0, atol=1e-5)


@examples(10)
@given(threshold=st.floats(0.01, 0.9), decay=st.floats(0.05, 0.9))
def test_a_code_without_use_dies_when_the_decay_says_so(threshold: float, decay: float) -> None:
    """In the first step t with γᵗ < threshold, and not before."""
    quantizer = VectorQuantizer(1, 2)
    quantizer.set_codebook(torch.tensor([[0.0], [9.0]]))
    replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), threshold=threshold, decay=decay)
    steps = math.floor(math.log(threshold) / math.log(decay)) + 1
    if abs(decay ** (steps - 1) - threshold) < 1e-5 or abs(decay**steps - threshold) < 1e-5:
        return
    for step in range(1, steps + 1):
        quantizer(torch.tensor([[0.1], [0.2]]))
        assert replacement.step() == (step == steps)


@with_tables
def test_every_table_takes_part(case: Case) -> None:
    """By itself or within others; the replaced codes are vectors that reach it, and get used."""
    torch.manual_seed(0)
    quantizer = case.build()
    optimizer = optimizer_of(quantizer)
    replacement = DeadCodeReplacement(quantizer, optimizer, threshold=0.5, decay=0.0)
    used, replaced = [], []
    # The largest product tells vectors apart by their direction, which far away is one.
    offset = 1.0 if case.choice == "product" else 50.0
    for seed in range(4):
        x = far(64, seed, offset)
        train_step(quantizer, optimizer, x)
        used.append(quantizer.encode(x).unique(dim=0).shape[0])
        replaced.append(replacement.step())
    tables = replacement._tables.values()
    assert 0 < replaced[0] <= sum(table.codebook_size for table in tables)
    assert all(table.codebook.isfinite().all() for table in tables)
    assert used[-1] > used[0]


@cases_where(lambda case: case.sample.has_table and case.learns_all_codes)
def test_replaced_codes_are_vectors_in_code_space(case: Case) -> None:
    torch.manual_seed(0)
    quantizer = case.build()
    optimizer = optimizer_of(quantizer)
    replacement = DeadCodeReplacement(quantizer, optimizer, threshold=0.5, decay=0.0)
    x = far(64)
    train_step(quantizer, optimizer, x)
    before = quantizer.codebook.detach().clone()
    replaced = replacement.step()
    codes = quantizer.codebook.detach()
    with torch.no_grad():
        z = quantizer.project_in(x)
        z = quantizer._to_value_space(z) if hasattr(quantizer, "_to_value_space") else z
        if case.choice == "product":  # a vector's direction, at the mean length of the codes
            z = nn.functional.normalize(z, dim=-1) * before.norm(dim=-1).mean()
    scaled = getattr(quantizer, "distance", "") == "cosine" or case.choice == "product"
    # Unit vectors are divided by their norm twice more; a sum of SIZE lengths rounds, and so do their products.
    tolerance = (4 + SIZE) * EPS * float(before.abs().max()) * scaled
    moved = (codes - before).abs().amax(-1) > tolerance
    assert moved.sum() == replaced > 0
    assert rows_among(codes[moved], z, tolerance)
    assert len(codes[moved].unique(dim=0)) == replaced


@examples(10)
@given(
    seed=st.integers(0, 999), kind=st.sampled_from([DeadCodeReplacement, AnchorUpdate]), scale=st.floats(0.1, 50)
)
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.sample.has_table and case.choice == "product"], ids=str
)
def test_where_the_largest_product_chooses_no_moved_code_is_longer_than_the_others(
    case: Case, seed: int, kind: type[Replacement], scale: float
) -> None:
    """However long the vectors are that it moves to: it would have the largest product for nearly all of them."""
    torch.manual_seed(seed)
    quantizer = case.build()
    replacement = kind(quantizer, optimizer_of(quantizer), decay=0.5)
    before = quantizer.codebook.detach().clone()
    for step in range(5):
        quantizer(scale * batch(64, seed=seed + step))
        replacement.step()
    codes = quantizer.codebook.detach()
    moved = (codes != before).any(-1)
    assert moved.any()
    # Each mean is at most the longest code before, and a move ends between a code and the mean; some roundings.
    longest = before.norm(dim=-1).max()
    assert codes.norm(dim=-1).max() <= longest * (1 + 40 * (SIZE + 8) * EPS)


@every_case
def test_others_are_refused(case: Case) -> None:
    if case.has_tables or not case.learns_all_codes:
        return
    quantizer = case.build()
    with pytest.raises(ValueError, match=REFUSED):
        DeadCodeReplacement(quantizer, optimizer_of(quantizer))


@pytest.mark.parametrize("shared", [True, False])
def test_stages_get_residuals_and_scales_get_cells(shared: bool) -> None:
    """A shared codebook counts all of its places once."""
    torch.manual_seed(0)
    residual = quantizers.create("residual", dim=DIM, codebook_size=16, num_quantizers=2, shared=shared)
    pyramid = quantizers.create("multiscale", dim=DIM, codebook_size=16, scales=(0.5, 1.0), axes=1, shared=shared)
    x = far(64).view(8, 8, DIM)
    for quantizer in (residual, pyramid):
        optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.0)
        replacement = DeadCodeReplacement(quantizer, optimizer, threshold=0.5, decay=0.0)
        assert len(replacement._tables) == (1 if shared else 2)
        quantizer(x)
        met = []
        rows = to_rows(x, None, DIM, -1)
        indices = quantizer.encode(x).flatten(0, -2)
        for part, z, chosen in quantizer.learned_rows(rows, indices):
            met.append((part, z.detach()))
            values = part.codebook[chosen].detach()
            assert torch.equal(chosen, part.encode(z)), "not the vectors that the part saw"
            assert values.shape == z.shape
        assert [len(z) for _, z in met] == ([64, 64] if quantizer is residual else [32, 64])
        before = [part.codebook.detach().clone() for part in quantizer.quantizers]
        assert replacement.step() > 0
        for part, old in zip(quantizer.quantizers, before, strict=True):
            moved = (part.codebook != old).any(-1)
            assert rows_among(part.codebook[moved].detach(), torch.cat([z for of, z in met if of is part]))


@with_tables
def test_frozen_codes_stay_until_they_are_unfrozen(case: Case) -> None:
    torch.manual_seed(0)
    quantizer = case.build()
    replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), threshold=0.5, decay=0.0)
    quantizer.freeze()
    before = state_of(quantizer)
    quantizer(far(64))
    assert replacement.step() == 0
    assert_same_state(before, state_of(quantizer))
    quantizer.unfreeze()(far(64))
    assert replacement.step() > 0


def test_a_frozen_stage_keeps_no_other_from_moving() -> None:
    model = Autoencoder()
    replacement = DeadCodeReplacement(model, optimizer_of(model), threshold=0.5, decay=0.0)
    frozen, *others = replacement._tables.values()
    frozen.freeze()
    before = [table.codebook.detach().clone() for table in (frozen, *others)]
    model(far(64))
    assert replacement.step() > 0
    stayed = [torch.equal(table.codebook, old) for table, old in zip((frozen, *others), before, strict=True)]
    assert stayed == [True, False, False]


def test_what_does_not_count_is_no_candidate() -> None:
    """Masked vectors, such that are not finite, and on the sphere those without a direction."""
    x = far(30)
    x[:10], x[10:12], mask = torch.nan, 0.0, torch.arange(30) < 20
    for distance in ("euclidean", "cosine"):
        quantizer = VectorQuantizer(DIM, 40, distance=distance)  # type: ignore[arg-type]
        replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), threshold=0.5, decay=0.0)
        quantizer(x, mask=mask)
        assert replacement.step() == (9 if distance == "euclidean" else 8)
        assert replacement.step() == 0, "a batch was taken twice"
        quantizer.eval()(x)
        assert replacement.step() == 0, "evaluation was taken"


# What moves with a code


@examples(10)
@given(seed=st.integers(0, 999), kind=st.sampled_from([DeadCodeReplacement, AnchorUpdate]))
def test_moments_shrink_with_what_is_left_of_the_old_code(seed: int, kind: type[Replacement]) -> None:
    """Those of replaced codes are zero, all others keep every bit; so does the step count."""
    torch.manual_seed(seed)
    quantizer = VectorQuantizer(DIM, 16, code_dim=3)
    optimizer = optimizer_of(quantizer)
    for step in range(3):
        train_step(quantizer, optimizer, batch(40, seed=step))
    options = {} if kind is AnchorUpdate else {"threshold": 0.9}
    replacement = kind(quantizer, optimizer, decay=0.5, **options)  # type: ignore[arg-type]
    train_step(quantizer, optimizer, far(40))
    before, old = copy.deepcopy(optimizer.state_dict()["state"]), state_of(quantizer)
    assert replacement.step() > 0
    if kind is AnchorUpdate:
        left = 1 - (-20 * replacement.state_dict()[""] - 1e-3).exp()
    else:
        left = (quantizer.embedding == old["embedding"]).all(-1).float()
        assert 0 < left.sum() < 16
    after = optimizer.state_dict()["state"]
    number = [id(p) for p in quantizer.parameters()].index(id(quantizer.embedding))
    for parameter, state in before.items():
        for name, value in state.items():
            expected = value * left[:, None] if parameter == number and value.dim() else value
            # Of α two roundings, and one of the product.
            atol = 4 * EPS * float(value.abs().max()) if kind is AnchorUpdate and parameter == number else 0.0
            torch.testing.assert_close(after[parameter][name], expected, rtol=0, atol=atol)
    for name, value in state_of(quantizer).items():
        assert name == "embedding" or torch.equal(value, old[name])


@examples(10)
@given(seed=st.integers(0, 999), distance=st.sampled_from(["euclidean", "cosine"]), kind=st.sampled_from([0, 1]))
def test_the_next_step_of_the_averages_keeps_a_moved_code(seed: int, distance: str, kind: int) -> None:
    """A replaced code counts as one vector seen; a forward without that vector leaves it, up to the smoothing."""
    torch.manual_seed(seed)
    quantizer = EMAVectorQuantizer(DIM, 16, distance=distance)  # type: ignore[arg-type]
    replacement: Replacement
    if kind:
        replacement = AnchorUpdate(quantizer, optimizer_of(quantizer), decay=0.5)
    else:
        replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), threshold=0.5, decay=0.0)
    quantizer(far(20))
    before = quantizer.embedding.clone()
    assert replacement.step() > 0
    moved = (quantizer.embedding != before).any(-1)
    codes = quantizer.embedding.clone()
    if not kind:
        assert (quantizer.cluster_size[moved] == 1).all()
        assert torch.equal(quantizer.embedding_sum[moved], codes[moved])
    sizes = quantizer.cluster_size
    assert torch.equal(quantizer.embedding_sum[moved], sizes[moved, None] * codes[moved])
    chosen = quantizer(-far(1)).indices
    stayed = moved & (torch.arange(16) != chosen)
    # e = m / N̂ with N̂ = (N + ε) / (1 + Kε/ΣN), and m = N · e before: off by ε/N + Kε/ΣN, and a few roundings.
    allowed = (1e-5 * (1 / sizes.min() + 16 / sizes.sum()) + 20 * EPS) * codes.abs().amax()
    assert (quantizer.embedding - codes)[stayed].abs().max() <= allowed


def test_an_optimizer_without_state() -> None:
    quantizer = VectorQuantizer(DIM, SIZE)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    replacement = DeadCodeReplacement(quantizer, optimizer, threshold=0.5, decay=0.0)
    quantizer(far(20))
    assert replacement.step() > 0
    assert not optimizer.state, "state appeared"


def test_an_optimizer_that_does_not_have_the_codes_is_named() -> None:
    """As one that was made before another quantizer took the place; codes that are averages need none."""
    model = Autoencoder()
    optimizer = optimizer_of(model)
    model.quantizer = quantizers.create("residual", dim=DIM, codebook_size=16, num_quantizers=2)
    expected = (
        r"optimizer is Adam, which does not have the codes of 'quantizer.quantizers.0', 'quantizer.quantizers.1'"
    )
    with pytest.warns(RuntimeWarning, match=expected):
        replacement = DeadCodeReplacement(model, optimizer, threshold=0.5, decay=0.0)
    model(far(20))
    assert replacement.step() > 0
    assert not optimizer.state, "state appeared"
    DeadCodeReplacement(model.level, optimizer)
    DeadCodeReplacement(model.quantizer.requires_grad_(False), optimizer)


def test_tensors_that_torch_makes_by_default_elsewhere_do_no_harm() -> None:
    """As under `torch.set_default_device`: no tensor or generator of the aids is of the default device."""
    quantizer = VectorQuantizer(DIM, SIZE)
    replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), threshold=0.5, decay=0.0)
    few, many = far(SIZE // 2), far(2 * SIZE)
    quantizer(many)
    with torch.device("meta"):
        assert replacement.step() > 0
        for x in (few, many):
            quantizer.initialize_from(x)
            quantizers.warm_start(quantizer, [x])


# CVQ-VAE


@examples(15)
@given(
    seed=st.integers(0, 999), decay=st.sampled_from([0.0, 0.5, 0.99]), epsilon=st.sampled_from([0.0, 1e-3, 1.0])
)
def test_anchors_pull_by_the_papers_equation(seed: int, decay: float, epsilon: float) -> None:
    """e ← (1 − α) e + α a with α = exp(−10 N K / (1−γ) − ε), N the running share; anchors are distinct vectors."""
    torch.manual_seed(seed)
    quantizer = VectorQuantizer(2, 8).double()
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.0)
    replacement = AnchorUpdate(quantizer, optimizer, decay=decay, epsilon=epsilon)
    share = torch.zeros(8, dtype=torch.float64)
    for _ in range(3):
        x = torch.randn(12, 2, dtype=torch.float64)
        counts = quantizer(x).indices.bincount(minlength=8)
        share = decay * share + (1 - decay) * counts.double() / 12
        alpha = (-share * 8 * 10 / (1 - decay) - epsilon).exp()[:, None]
        before = quantizer.embedding.detach().clone()
        moved = replacement.step()
        assert moved == 8
        strong = alpha[:, 0] > 1e-4
        anchors = ((quantizer.embedding.detach() - (1 - alpha) * before) / alpha)[strong]
        nearest = (anchors[:, None] - x).norm(dim=-1).min(-1)
        # Roundings of 10⁻¹⁶ divided by α.
        assert (nearest.values <= 1e-10).all()
        assert nearest.indices.unique().numel() == len(anchors)
        weak = alpha[:, 0] < 1e-18
        assert torch.equal(quantizer.embedding[weak], before[weak])


# Models


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.quantizer = quantizers.create("residual", dim=DIM, codebook_size=16, num_quantizers=2)
        self.level = EMAVectorQuantizer(DIM, 16)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> quantizers.QuantizerOutput:
        quantized, indices, loss = self.quantizer(self.encoder(x), mask=mask)
        coarse = self.level(x)
        return quantizers.QuantizerOutput(self.decoder(quantized + coarse.quantized), indices, loss + coarse.loss)


def run(
    model: nn.Module, optimizer: torch.optim.Optimizer, replacement: Replacement, first: int, last: int
) -> int:
    replaced = 0
    for step in range(first, last):
        torch.manual_seed(step)
        train_step(model, optimizer, far(30, step))
        replaced += replacement.step()
    return replaced


@pytest.mark.parametrize("kind", [DeadCodeReplacement, AnchorUpdate])
def test_a_run_goes_on_from_a_checkpoint(kind: type[Replacement]) -> None:
    """Bit for bit that without the interruption."""
    torch.manual_seed(0)
    model = Autoencoder()
    optimizer = optimizer_of(model)
    replacement = kind(model, optimizer, decay=0.6)
    run(model, optimizer, replacement, 0, 4)
    state = copy.deepcopy([model.state_dict(), optimizer.state_dict(), replacement.state_dict()])
    assert sorted(state[2]) == ["level", "quantizer.quantizers.0", "quantizer.quantizers.1"]
    assert run(model, optimizer, replacement, 4, 8) > 0
    other = Autoencoder()
    resumed = optimizer_of(other)
    again = kind(other, resumed, decay=0.6)
    for part, loaded in zip((other, resumed, again), state, strict=True):
        part.load_state_dict(loaded)
    run(other, resumed, again, 4, 8)
    assert_same_state(state_of(model), state_of(other))
    assert_same_state(replacement.state_dict(), again.state_dict())


def wrapped_ways(model: nn.Module) -> list[nn.Module]:
    """The same model: as it is, and in what people put around it, once and twice."""
    compiled = torch.compile(model, backend="eager")
    return [model, compiled, AveragedModel(model), nn.DataParallel(model), nn.DataParallel(compiled)]


def test_a_state_goes_to_the_model_however_it_is_wrapped() -> None:
    """Also one that was saved with the wrapper's names."""
    states = []
    for number in range(5):
        torch.manual_seed(0)
        model = wrapped_ways(Autoencoder())[number]
        replacement = DeadCodeReplacement(model, optimizer_of(model))
        states.append(replacement.state_dict())
        state = {name: torch.full_like(use, number) for name, use in states[0].items()}
        for prefix in ("", "module.", "_orig_mod.", "module._orig_mod."):
            replacement.load_state_dict({prefix + name: use for name, use in state.items()})
            assert_same_state(replacement.state_dict(), state)
    assert all(state.keys() == states[0].keys() for state in states)


def test_names_that_only_a_module_called_module_tells_apart() -> None:
    """A user's own `module` is no wrapper, and its codes are not those beside it."""
    model = nn.ModuleDict({"module": nn.ModuleDict({"q": VectorQuantizer(2, 3)}), "q": VectorQuantizer(2, 3)})
    replacement = DeadCodeReplacement(model, optimizer_of(model))
    state = {"module.q": torch.ones(3), "q": torch.zeros(3)}
    replacement.load_state_dict(state)
    assert_same_state(replacement.state_dict(), state)


def test_a_state_of_another_model_is_refused() -> None:
    quantizer = VectorQuantizer(DIM, 4)
    replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer))
    with pytest.raises(ValueError, match=r"state has codebooks \{'': 5\}, expected \{'': 4\}"):
        replacement.load_state_dict({"": torch.ones(5)})


def test_copies_of_the_model_keep_nothing_and_bring_nothing() -> None:
    model = Autoencoder()
    optimizer = optimizer_of(model)
    DeadCodeReplacement(model, optimizer)
    size = len(pickle.dumps(Autoencoder()))
    train_step(model, optimizer, far(10_000))
    model.zero_grad()
    pickled = pickle.dumps(model)
    assert len(pickled) < size + 2000, "a batch or an optimizer came along"
    for other in (copy.deepcopy(model), pickle.loads(pickled)):
        assert_same_state(state_of(model), state_of(other))
        assert other(far(5)).quantized.shape == (5, DIM)
        assert not any(getattr(part, "_code_hooks", ()) for part in other.modules())
        again = DeadCodeReplacement(other, optimizer_of(other), threshold=0.9, decay=0.0)
        other(far(5))
        assert again.step() > 0


def test_a_removed_one_leaves_the_model_as_it_was() -> None:
    model = Autoencoder()
    replacement = DeadCodeReplacement(model, optimizer_of(model), threshold=0.9, decay=0.0)
    model(far(5))
    replacement.remove()
    assert not any("_code_hooks" in vars(part) for part in model.modules())
    model(far(5))
    assert replacement.step() == 0


def test_stages_by_themselves_take_part_and_encode_does_not() -> None:
    """As adapters call them, past the hooks of a module."""
    quantizer = quantizers.create("residual", dim=DIM, codebook_size=5, num_quantizers=2)
    replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), threshold=0.9, decay=0.0)
    quantizer.encode(far(2))
    assert replacement.step() == 0
    quantizer.forward_stages(far(2))
    assert replacement.step() > 0


def test_a_compiled_model_takes_part() -> None:
    """One graph, and what eager mode replaces."""
    states = []
    for compiles in (False, True):
        torch.manual_seed(0)
        model = Autoencoder()
        optimizer = optimizer_of(model)
        replacement = DeadCodeReplacement(model, optimizer, decay=0.6)
        used = torch.compile(model, fullgraph=True, backend="aot_eager") if compiles else model
        assert run(used, optimizer, replacement, 0, 6) > 0  # type: ignore[arg-type]
        states.append(replacement.state_dict())
    assert_same_state(*states)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (DeadCodeReplacement, {"threshold": -0.1}, "threshold is -0.1, expected"),
        (DeadCodeReplacement, {"threshold": math.nan}, "threshold is nan, expected"),
        (DeadCodeReplacement, {"decay": 1.0}, "decay is 1.0, expected"),
        (AnchorUpdate, {"decay": -1}, "decay is -1, expected"),
        (AnchorUpdate, {"epsilon": math.inf}, "epsilon is inf, expected"),
        (AnchorUpdate, {"process_group": "all"}, "process_group is 'all', expected"),
    ],
)
def test_wrong_options_are_named(kind: type[Replacement], options: dict, message: str) -> None:
    quantizer: Quantizer = VectorQuantizer(DIM, 4)
    with pytest.raises((ValueError, TypeError), match=message):
        kind(quantizer, optimizer_of(quantizer), **options)
    assert "_code_hooks" not in vars(quantizer)
