"""`warm_start`: quantizers in a model start from what the model gives them, and nothing else is touched."""

import copy
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from quantizers import EMAVectorQuantizer, Quantizer, VectorQuantizer, warm_start
from quantizers.kernels.ops.nearest import nearest_code
from quantizers.warm_start import _Sample
from tests.cases import DIM, assert_same_state, batch, normal, state_of


class TwoLevels(nn.Module):
    """As VQ-VAE-2: what the top quantizer gives is taken from what the bottom one gets; bottom is named first."""

    def __init__(self, bottom: Quantizer, top: Quantizer) -> None:
        super().__init__()
        self.bottom, self.top = bottom, top
        self.encoder = nn.Sequential(nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM), nn.Dropout(0.5))
        self.decoder = nn.Linear(DIM, DIM)
        self.decoded = 0

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        z = self.encoder(x)
        coarse = self.top(z, mask=mask)
        fine = self.bottom(z - coarse.quantized.nan_to_num(), mask)
        self.decoded += 1
        return self.decoder(coarse.quantized + fine.quantized)


def built(**options: Quantizer) -> TwoLevels:
    torch.manual_seed(0)
    parts = {"bottom": VectorQuantizer(DIM, 8), "top": EMAVectorQuantizer(DIM, 8), **options}
    model = TwoLevels(**parts)
    model.encoder[0].eval()  # modes that differ
    model.bottom.project_in.eval()
    return model


def around(model: nn.Module) -> list[object]:
    """Modes, gradients, hooks and whatever else a module's dictionary holds but its tensors and submodules."""
    own = [
        {key: copy.copy(value) for key, value in vars(module).items() if key not in ("_parameters", "_buffers")}
        for module in model.modules()
    ]
    return [own, [parameter.grad for parameter in model.parameters()]]


def codes_alone(state: dict[str, Tensor]) -> set[str]:
    parts = ("embedding", "cluster_size", "embedding_sum", "previous_embedding")
    return {name for name in state if name.split(".")[-1] in parts}


def test_quantizers_start_in_the_order_of_the_forward() -> None:
    """The further one from what the earlier one leaves with its new codes; every code is used."""
    model, x = built(), batch(200)
    warm_start(model, [x[:150], x[150:]])
    model.eval()
    z = model.encoder(x).detach()
    coarse = model.top(z)
    left = z - coarse.quantized
    fine = model.bottom(left)
    assert coarse.indices.unique().numel() == fine.indices.unique().numel() == 8
    codes, indices = model.bottom.codebook.detach(), fine.indices
    means = torch.stack([left[indices == code].mean(0) for code in range(8)])
    # Lloyd's iterations may not have ended, but each is nearer to the means than the codes drawn at first were.
    found = (left - codes[nearest_code(left[None], codes[None])[0][0]]).square().sum()
    least = (left - means[indices]).square().sum()
    assert least <= found * (1 + 1e-6)
    assert found <= 1.2 * least


@pytest.mark.parametrize("fails", [False, True])
def test_all_but_the_codes_is_bit_equal_afterwards(fails: bool) -> None:
    model = built()
    model(batch(20)).sum().backward()
    model.encoder[0].weight.grad = None
    hook = model.top.register_forward_pre_hook(lambda module, args: None)
    before, around_before = state_of(model), around(model)

    def batches() -> Iterator[object]:
        yield batch(50)
        if fails:
            raise RuntimeError("the data ends")

    if fails:
        with pytest.raises(RuntimeError, match="the data ends"):
            warm_start(model, batches())
    else:
        warm_start(model, batches())
    after = state_of(model)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == (set() if fails else codes_alone(after))
    assert repr(around(model)) == repr(around_before)
    assert model.decoded == 1, "a forward went beyond its quantizer"
    hook.remove()


def test_so_it_is_where_the_model_itself_raises() -> None:
    model = built()
    before, around_before = state_of(model), around(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        warm_start(model, [batch(50), torch.ones(3, DIM + 1)])
    assert_same_state(before, state_of(model))
    assert repr(around(model)) == repr(around_before)


def test_batches_are_what_the_model_takes() -> None:
    """Tensors, positional and keyword arguments, once or several times; a mask counts as in a forward."""
    x, mask = batch(100), torch.arange(100) < 60
    kinds = [
        [x[:60]],
        [(x, mask)],
        [[x, mask]],
        [{"x": x, "mask": mask}],
        iter([(x, mask)]),
        ((part, kept) for part, kept in zip(x.split(50), mask.split(50), strict=True)),
    ]
    states = []
    for batches in kinds:
        model = built()
        torch.manual_seed(3)
        warm_start(model, batches)  # type: ignore[arg-type]
        states.append(state_of(model))
    for state in states[1:]:
        assert_same_state(states[0], state)


def test_a_quantizer_is_a_model_and_holds_its_own() -> None:
    """Those inside a quantizer start with it: the stages of a residual from residuals."""
    residual = quantizers.create("residual", dim=DIM, codebook_size=8, num_quantizers=2)
    other = copy.deepcopy(residual)
    torch.manual_seed(3)
    torch.rand(60, dtype=torch.float64)  # the sample's keys
    residual.initialize_from(batch(60))
    torch.manual_seed(3)
    warm_start(other, [batch(60)])
    assert_same_state(state_of(residual), state_of(other))


def test_maps_stay_whole() -> None:
    pyramid = quantizers.create("multiscale", dim=DIM, codebook_size=4, scales=(0.5, 1.0), axes=1, shared=False)
    other = copy.deepcopy(pyramid)
    maps = batch(6, 4)
    torch.manual_seed(3)
    torch.rand(6, dtype=torch.float64)
    pyramid.initialize_from(maps)
    torch.manual_seed(3)
    warm_start(other, [maps[:2], maps[2:]])
    assert_same_state(state_of(pyramid), state_of(other))
    warm_start(other, [maps], max_vectors=9)  # two maps, and so four coarse cells
    with pytest.raises(ValueError, match=r"maps have sizes \(4,\) and \(5,\), expected one size"):
        warm_start(other, [maps, batch(2, 5)])


@settings(max_examples=10)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=5), limit=st.integers(1, 20), seed=st.integers(0, 99)
)
def test_a_sample_is_of_distinct_positions_and_as_large_as_it_may_be(
    counts: list[int], limit: int, seed: int
) -> None:
    sample = _Sample(VectorQuantizer(1, 2), limit)
    x = torch.arange(float(sum(counts)))[:, None]
    torch.manual_seed(seed)
    for part in x.split(counts):
        sample.add(part, None)
    rows = sample.rows()
    assert rows.valid.all()
    assert rows.vectors.unique().numel() == len(rows.vectors) == min(limit, sum(counts))


def test_a_sample_is_uniform_over_batches() -> None:
    """Of 40 positions in uneven batches, half are kept: each in a draw with probability ½."""
    kept = torch.zeros(40)
    for seed in range(400):
        sample = _Sample(VectorQuantizer(1, 2), 20)
        torch.manual_seed(seed)
        for part in torch.arange(40.0)[:, None].split([3, 30, 7]):
            sample.add(part, None)
        kept[sample.rows().vectors[:, 0].long()] += 1
    # Binomial of 400 draws: a deviation of 10; that one of 40 is beyond five of them has a chance of 2 · 10⁻⁵.
    assert ((kept - 200).abs() < 50).all()


def test_max_vectors_bounds_what_kmeans_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(VectorQuantizer, "_initialize", lambda self, z, process_group: seen.append(z.shape))
    warm_start(VectorQuantizer(DIM, 2), [normal(0, 30, DIM), normal(1, 30, DIM)], max_vectors=20)
    assert seen == [(20, DIM)]


@pytest.mark.parametrize("call", ["encode", "forward_stages"])
def test_a_model_that_calls_its_quantizer_otherwise(call: str) -> None:
    """As codecs do, which hand on indices; what a mask leaves out does not count."""
    quantizer = quantizers.create("residual", dim=DIM, codebook_size=8, num_quantizers=2)
    other, x = copy.deepcopy(quantizer), batch(30)
    mask = torch.arange(30) < 20

    class Codec(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantizer = quantizer

        def forward(self, x: Tensor) -> object:
            return getattr(self.quantizer, call)(x, mask)

    torch.manual_seed(0)
    warm_start(Codec(), [x])
    torch.manual_seed(0)
    warm_start(other, [(x, mask)])
    assert torch.equal(quantizer.codebook, other.codebook)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch's own
def test_a_compiled_model_runs_as_it_was_written() -> None:
    model = nn.Sequential(nn.Linear(DIM, DIM), VectorQuantizer(DIM, 8))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    compiled.eval()
    with torch.no_grad():
        compiled(batch(30))  # a graph that knows of no hook
    warm_start(compiled, [batch(30)])
    assert model(batch(30)).indices.unique().numel() == 8


@pytest.mark.parametrize(
    ("model", "batches", "message"),
    [
        (nn.Linear(DIM, DIM), [torch.ones(2, DIM)], "model is Linear, which holds no quantizer"),
        (VectorQuantizer(DIM, 2), [], "batches is empty"),
        (nn.ModuleDict({"used": VectorQuantizer(DIM, 2)}), [], "batches is empty"),
        (VectorQuantizer(DIM, 2), ["x"], "a batch is str, expected a tensor"),
        (VectorQuantizer(DIM, 2), [torch.full((2, DIM), torch.nan)], "expected a vector on at least one rank"),
    ],
)
def test_what_cannot_be_is_said(model: nn.Module, batches: list, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        warm_start(model, batches)


def test_a_quantizer_that_is_not_reached_is_named() -> None:
    model = built()
    model.unused = VectorQuantizer(DIM, 2)
    with pytest.raises(ValueError, match="no quantizer of 'unused' was reached in 1 batches"):
        warm_start(model, [batch(30)])
    with pytest.raises(ValueError, match="max_vectors is 0"):
        warm_start(model, [batch(30)], max_vectors=0)
