"""`warm_start`: quantizers in a model start from what the model gives them, and nothing else is touched."""

import copy
import random
import weakref
from collections import UserDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

import quantizers
from quantizers import EMAVectorQuantizer, Quantizer, VectorQuantizer, warm_start
from quantizers.kernels.nearest.operation import nearest_code
from quantizers.training.sample import VectorSample
from tests.cases import DIM, Case, assert_same_state, batch, cases_where, normal, state_of
from tests.effort import examples
from tests.versions import text_of


class Noisy(nn.Module):
    """What differs in training, each of its own kind: random numbers of three sources, and buffers that move."""

    calls: Tensor
    last: Tensor
    history: Tensor
    first: Tensor | None
    cache: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = spectral_norm(nn.Linear(DIM, DIM))
        self.norm = nn.BatchNorm1d(DIM)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(DIM))
        self.register_buffer("history", torch.zeros(0, DIM))
        self.register_buffer("first", None)
        self.register_buffer("cache", torch.zeros(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1  # noise that falls from step to step
            scale = 1 / self.calls.item()
            self.last = x.mean(0)
            self.history = torch.cat([self.history, self.last[None]])
            self.first = self.last if self.first is None else self.first
            x = x + scale * (random.random() + np.random.random()) * self.last
        if len(self.cache) < len(x):
            self.cache = torch.ones(len(x))
        return self.dropout(self.norm(self.linear(x))) * self.cache[: len(x), None]


class TwoLevels(nn.Module):
    """As VQ-VAE-2: what the top quantizer gives is taken from what the bottom one gets; bottom is named first."""

    def __init__(self, bottom: Quantizer, top: Quantizer) -> None:
        super().__init__()
        self.bottom, self.top = bottom, top
        self.encoder = nn.Sequential(nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM), nn.Dropout(0.5), Noisy())
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
    """Modes, gradients, hooks and whatever else a module's dictionary holds but its tensors and submodules, and
    that a quantizer has looked once at the dtype of its state."""
    left_out = ("_parameters", "_buffers", "_has_run", "_half_state_is_known")
    own = [
        {key: copy.copy(value) for key, value in vars(module).items() if key not in left_out}
        for module in model.modules()
    ]
    return [own, [parameter.grad for parameter in model.parameters()]]


def codes_alone(state: dict[str, Tensor]) -> set[str]:
    parts = ("embedding", "cluster_size", "embedding_sum")
    return {name for name in state if name.split(".")[-1] in parts}


def test_quantizers_start_in_the_order_of_the_forward() -> None:
    """The further one from what the earlier one leaves with its new codes; every code is used."""
    model, x = built(), batch(200)
    warm_start(model, [x[:150], x[150:]], training=False)
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


def generators() -> list[object]:
    _, numbers, position, *_ = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), numbers.tolist(), position]


@examples(8)
@given(
    fails=st.booleans(), training=st.booleans(), mode=st.booleans(), sizes=st.lists(st.integers(9, 50), max_size=2)
)
def test_all_but_the_codes_is_bit_equal_afterwards(
    fails: bool, training: bool, mode: bool, sizes: list[int]
) -> None:
    model = built()
    model(batch(60)).sum().backward()
    model.encoder[0].weight.grad = None
    if not mode:
        model.eval()
        model.encoder[3].norm.train()
    hook = model.top.register_forward_pre_hook(lambda module, args: None)
    model.bottom.register_code_hook(
        lambda quantizer, event: pytest.fail("a hook got a forward that is not the user's")
    )
    before, around_before, numbers = state_of(model), around(model), generators()

    def batches() -> Iterator[object]:
        for size in [50, *sizes]:
            yield batch(size)
        if fails:
            raise RuntimeError("the data ends")

    if fails:
        with pytest.raises(RuntimeError, match="the data ends"):
            warm_start(model, batches(), training=training)
    else:
        warm_start(model, batches(), training=training)
    after = state_of(model)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == (set() if fails else codes_alone(after))
    assert repr(around(model)) == repr(around_before)
    assert generators() == numbers
    assert model.decoded == 1, "a forward went beyond its quantizer"
    hook.remove()


class FrozenNorm(nn.Sequential):
    """A BatchNorm that stays in evaluation mode by a `train` of its own."""

    def train(self, mode: bool = True) -> "FrozenNorm":
        super().train(mode)
        self[0].eval()
        return self


@cases_where(lambda case: not case.options)
@pytest.mark.parametrize("left_in", ["training", "evaluation"])
def test_codes_are_those_of_the_first_training_step(case: Case, left_in: str) -> None:
    """Bit for bit those of k-means on what a forward in training brings, whatever mode the model was left in."""
    frozen = FrozenNorm(nn.BatchNorm1d(DIM))
    frozen[0].running_var.fill_(4.0)
    encoder = nn.Sequential(nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM), frozen).train()
    model = nn.Sequential(encoder, case.build())
    x, expected = 5 + 30 * batch(60), copy.deepcopy(model[1])
    with torch.no_grad():
        vectors = copy.deepcopy(encoder)(x)
    torch.manual_seed(3)
    torch.rand(60, dtype=torch.float64)  # the sample's keys
    expected.initialize_from(vectors)
    model.train(left_in == "training")
    torch.manual_seed(3)
    warm_start(model, [x])
    assert_same_state(state_of(model[1]), state_of(expected))


def test_a_forward_sees_the_buffers_of_the_first_step() -> None:
    """Also one for a later batch: noise that falls from call to call is that of the first."""
    model = nn.Sequential(Noisy(), VectorQuantizer(DIM, 2))
    seen: list[tuple[int, int]] = []
    model[0].register_forward_hook(
        lambda module, args, output: seen.append((int(module.calls), len(module.history)))
    )
    warm_start(model, [batch(9), batch(9), batch(9)])
    assert seen == [(1, 1)] * 3
    assert model[0].first is None
    assert len(model[0].cache) == 9, "a cache and what its module knows of it belong together"


def test_evaluation_where_it_is_asked_for() -> None:
    model = nn.Sequential(nn.BatchNorm1d(DIM), nn.Dropout(0.5), VectorQuantizer(DIM, 4))
    x = 30 * batch(20)
    warm_start(model, [x], training=False)
    assert 10 < model[2].codebook.std() < 100
    warm_start(model, [x])
    assert model[2].codebook.std() < 10


def test_so_it_is_where_the_model_itself_raises() -> None:
    model = built()
    model.encoder(batch(50))  # its cache has the size that it needs
    before, around_before = state_of(model), around(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        warm_start(model, [batch(50), torch.ones(3, DIM + 1)])
    assert_same_state(before, state_of(model))
    assert repr(around(model)) == repr(around_before)


@cases_where(lambda case: not case.options)
def test_frozen_codes_stay_and_the_others_start(case: Case) -> None:
    """Those of a whole quantizer, and of a stage; and a frozen one before another still runs."""
    first, last = case.build().freeze(), VectorQuantizer(DIM, 8)
    model = TwoLevels(bottom=last, top=first)
    before = state_of(first)
    started = last.codebook.detach().clone()
    warm_start(model, [batch(60)])
    assert_same_state(before, state_of(first))
    assert not torch.equal(last.codebook, started)
    warm_start(first, iter([]))  # nothing to do
    stages = quantizers.create("residual", dim=DIM, codebook_size=8, num_quantizers=2)
    stages.components[0].freeze()
    old = stages.codebook.detach().clone()
    warm_start(stages, [batch(60)])
    assert [torch.equal(*pair) for pair in zip(stages.codebook, old, strict=True)] == [True, False]


class Image(nn.Module):
    """A model of one input, which takes a mask too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(DIM, DIM)
        self.first, self.second = VectorQuantizer(DIM, 8), VectorQuantizer(DIM, 8)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        z = self.inner(x)
        left = z - self.first(z, mask).quantized.nan_to_num()
        return self.second(left, mask).quantized


@dataclass
class Sample:
    label: Tensor
    x: Tensor


Pair = namedtuple("Pair", ["label", "x"])
X, LABEL, MASK = batch(40), torch.arange(40) % 10, torch.arange(40) < 25

BATCHES: dict[str, Any] = {
    "tensors": [X],
    "image and label": [(X, LABEL)],
    "as a list": [[X, LABEL]],
    "a loader": DataLoader(TensorDataset(X, LABEL), batch_size=40, generator=torch.Generator()),
    "an iterator": iter([(X, LABEL)]),
    "a dict": [{"x": X, "label": LABEL}],
    "a mapping": [UserDict({"label": LABEL, "x": X})],
    "a named tuple": [Pair(LABEL, X)],
    "a dataclass": [Sample(LABEL, X)],
    "arrays": [(X.double().numpy(), LABEL.numpy())],
}


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(
    "wrap", [lambda model: model, nn.DataParallel, AveragedModel], ids=["plain", "DataParallel", "AveragedModel"]
)
def test_what_a_loader_gives_is_taken_without_its_labels(kind: str, wrap: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    model = wrap(Image())
    other = copy.deepcopy(model)
    torch.manual_seed(3)
    warm_start(model, [X])
    torch.manual_seed(3)
    warm_start(other, copy.deepcopy(BATCHES[kind]) if kind != "an iterator" else iter([(X, LABEL)]))
    assert_same_state(state_of(model), state_of(other))


def test_an_ordinary_training_loop_and_its_warm_start_share_a_loader() -> None:
    """Batches (image, label), of which some are smaller, and a model with BatchNorm."""
    images, labels = torch.rand(50, 3, 8, 8), torch.arange(50) % 10
    loader = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True)
    quantizer = VectorQuantizer(DIM, 8, channel_dim=1)
    model = nn.Sequential(nn.Conv2d(3, DIM, 4, stride=4), nn.BatchNorm2d(DIM), quantizer)
    before = quantizer.codebook.detach().clone()
    warm_start(model, loader)
    assert (quantizer.codebook != before).all()
    assert model(images).indices.unique().numel() == 8
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for image, _ in loader:
        quantized, _, loss = model(image)
        (quantized.square().mean() + loss).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_batch_of_named_entries_goes_to_keywords() -> None:
    """A collated dict, as a data set of dicts gives it; entries that the model does not name are left out."""
    dataset = [{"x": x, "label": label, "file": f"{label}.png"} for x, label in zip(X, LABEL, strict=True)]
    torch.manual_seed(0)
    model = Image()
    other = copy.deepcopy(model)
    torch.manual_seed(3)
    warm_start(model, [X])
    torch.manual_seed(3)
    warm_start(other, DataLoader(dataset, batch_size=40, generator=torch.Generator()))  # type: ignore[arg-type]
    assert_same_state(state_of(model), state_of(other))


@pytest.mark.parametrize(
    "given", [("a.png", X), (["a.png", "b.png"], X), [3, X], (None, X.numpy()), [("a",), LABEL, X]]
)
def test_a_batch_whose_first_element_is_no_input_is_ambiguous(given: Any) -> None:
    with pytest.raises(TypeError, match=r"Image.forward\(x, mask=None\).* no tensor: .*; pass forward="):
        warm_start(Image(), [given])
    warm_start(Image(), [given], forward=lambda model, batch: model(X))


def test_an_error_of_the_model_says_what_it_was_called_with() -> None:
    """Of (label, image) the model gets the label: its own error comes with a note that names the way out."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        warm_start(Image(), [(LABEL[None].float(), X)])
    assert text_of(caught.value).count("\nwarm_start called Image.forward(x, mask=None)") == 1
    assert "forward=lambda model, batch: ..." in text_of(caught.value)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        warm_start(Image(), [(LABEL[None].float(), X)], forward=lambda model, batch: model(batch[0]))
    assert "warm_start called" not in text_of(caught.value), "the call was the caller's own"


def test_a_mask_is_passed_by_name_or_by_a_function() -> None:
    """By position it would be a label to a loader's reader: it is left out, with a warning."""

    def started(batches: list, **options: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = Image()
        torch.manual_seed(3)
        warm_start(model, batches, **options)
        return state_of(model)

    by_name = started([{"x": X, "mask": MASK}])
    assert_same_state(by_name, started([(X, MASK)], forward=lambda model, given: model(*given)))
    with pytest.warns(
        RuntimeWarning, match=r"bool tensor at the position of the optional argument mask of Image.forward"
    ):
        left_out = started([(X, MASK)])
    assert_same_state(left_out, started([X]))


def test_as_many_positions_as_the_forward_requires() -> None:
    class Conditional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantizer = VectorQuantizer(DIM, 4)

        def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
            assert mask is None
            return self.quantizer(scale * (x + y)).quantized

    class Anything(Conditional):
        def forward(self, *args: Tensor) -> Tensor:
            assert len(args) == 1
            return self.quantizer(args[0]).quantized

    class Keywords(Conditional):
        def forward(self, **kwargs: Tensor) -> Tensor:
            assert sorted(kwargs) == ["labels", "x"]
            return self.quantizer(kwargs["x"]).quantized

    class Optional(Conditional):
        def forward(self, x: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
            assert x is not None
            return self.quantizer(x).quantized

    warm_start(Conditional(), [(X, X, LABEL)])
    warm_start(Anything(), [(X, LABEL)])
    warm_start(Optional(), [(X, LABEL)])
    warm_start(Optional(), [{"x": X, "labels": LABEL, 3: None}])
    warm_start(Keywords(), [{"x": X, "labels": LABEL}])
    called = r"Conditional.forward\(x, y, mask=None, \*, scale=1.0\)"
    for wrong, message in [
        (X, rf"a batch is a Tensor, which does not fit {called}: missing a required argument: 'y'; pass forward="),
        ({"x": X}, rf"a dict with keys \['x'\], which does not fit {called}: missing a required argument: 'y'"),
        ({"image": X}, rf"keys \['image'\], none of which is a parameter of {called}"),
    ]:
        with pytest.raises(TypeError, match=message):
            warm_start(Conditional(), [wrong])
    with pytest.raises(TypeError, match=r"\['image'\], none of which is a parameter of Optional.forward\("):
        warm_start(Optional(), [{"image": X}])
    with pytest.raises(TypeError, match=r"batches is a Tensor, expected an iterable of batches: \[batch\]"):
        warm_start(Optional(), X)
    with pytest.raises(TypeError, match=r"batches is a dict, expected an iterable of batches: \[batch\]"):
        warm_start(Optional(), {"x": X})


def test_an_iterator_is_held_only_where_it_is_needed_again() -> None:
    """And of each batch no more than the model gets."""
    held: list[weakref.ref[Tensor]] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for seed in range(3):
            assert sum(reference() is not None for reference in held) <= most, "labels or earlier batches are held"
            x, label = batch(20, seed=seed), torch.zeros(20)
            held.extend([weakref.ref(x), weakref.ref(label)])
            yield x, label
            del x, label

    most = 1  # the loop's own last batch, without its labels
    warm_start(nn.Sequential(nn.Linear(DIM, DIM), VectorQuantizer(DIM, 4)), batches())
    held.clear()
    most = 2  # all before the last
    warm_start(Image(), batches())


def test_an_iterable_that_ends_for_good_is_named() -> None:
    class Once:
        def __init__(self) -> None:
            self.left = iter([X])

        def __iter__(self) -> Iterator[Tensor]:
            yield from self.left

    with pytest.raises(ValueError, match="batches is empty, expected at least one batch, and an iterable"):
        warm_start(Image(), Once())


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


@examples(10)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=5), limit=st.integers(1, 20), seed=st.integers(0, 99)
)
def test_a_sample_is_of_distinct_positions_and_as_large_as_it_may_be(
    counts: list[int], limit: int, seed: int
) -> None:
    sample = VectorSample(VectorQuantizer(1, 2), limit)
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
        sample = VectorSample(VectorQuantizer(1, 2), 20)
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
    warm_start(other, [{"x": x, "mask": mask}])
    assert torch.equal(quantizer.codebook, other.codebook)


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
        (nn.Linear(DIM, DIM), [torch.ones(2, DIM)], "model is Linear, which contains no quantizer"),
        (VectorQuantizer(DIM, 2), [], "batches is empty"),
        (nn.ModuleDict({"used": VectorQuantizer(DIM, 2)}), [], "batches is empty"),
        (VectorQuantizer(DIM, 2), ["x"], "a batch is a str, expected a tensor"),
        (VectorQuantizer(DIM, 2), [torch.full((2, DIM), torch.nan)], "expected a vector on at least one rank"),
    ],
)
def test_what_cannot_be_is_said(model: nn.Module, batches: list, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        warm_start(model, batches)


def test_a_quantizer_that_is_not_reached_is_named() -> None:
    model = built()
    model.unused = VectorQuantizer(DIM, 2)
    with pytest.raises(ValueError, match="in 1 batches, the model reached none of these quantizers: 'unused'"):
        warm_start(model, [batch(30)])
    with pytest.raises(ValueError, match="max_vectors is 0"):
        warm_start(model, [batch(30)], max_vectors=0)
