"""Priors over codes: what each logit may depend on, one step at a time, bits, samples, and what is refused."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.errors import InputError
from benchmarks.models.condition import Condition, ConditionMap
from benchmarks.models.pixelcnn import PixelCNN
from benchmarks.models.prior import Prior
from benchmarks.models.sampling import filter_logits, sample
from benchmarks.models.transformer import Transformer

LAYERS = 2  # of PixelCNN, with kernels of 3: each layer reaches one row and one column further


def pixelcnn(sizes: tuple[int, ...], **options: object) -> Prior:
    return PixelCNN(sizes, 8, layers=LAYERS, kernel=3, **options).eval()


def transformer(sizes: tuple[int, ...], **options: object) -> Prior:
    return Transformer(sizes, 8, layers=2, heads=2, largest=(6, 8), **options).eval()


Build = Callable[..., Prior]
both = pytest.mark.parametrize("build", [pixelcnn, transformer])
all_sizes = pytest.mark.parametrize("sizes", [(4,), (3, 5), (5, 3, 2)], ids=str)


def random_codes(sizes: tuple[int, ...], *axes: int) -> Tensor:
    return torch.stack([torch.randint(size, axes) for size in sizes], -1)


def random_condition(batch: int, height: int, width: int) -> Condition:
    """For four classes, and a top level of two codebooks on a grid half as large."""
    return Condition(torch.randint(4, (batch,)), random_codes((3, 2), batch, height // 2, width // 2))


CONDITIONAL = {"classes": 4, "top_sizes": (3, 2)}


def places(height: int, width: int, codebooks: int) -> list[tuple[int, int, int]]:
    return list(itertools.product(range(height), range(width), range(codebooks)))


def sharpen(prior: Prior, factor: float) -> Prior:
    """Larger logits, so that probabilities are far from equal."""
    for parameter in prior.parameters():
        parameter.data *= factor
    return prior


# What a logit depends on


def influence(
    prior: Prior, embeddings: nn.ModuleList, codes: Tensor, condition: Condition | None = None
) -> dict[tuple[int, int, int], Tensor]:
    """For each place, which codes [h, w, n] its logits depend on: a derivative that is not exactly zero."""
    captured: list[Tensor] = []
    hooks = [table.register_forward_hook(lambda *call: captured.append(call[2])) for table in embeddings]
    logits = prior(codes, condition)
    for hook in hooks:
        hook.remove()
    assert len(captured) == len(embeddings)
    found = {}
    for row, column, codebook in places(*codes.shape[1:]):
        target = logits[codebook][0, row, column]
        direction = torch.randn(target.shape, dtype=target.dtype)
        slopes = torch.autograd.grad(
            target, captured, direction, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        found[row, column, codebook] = torch.stack([(slope[0] != 0).any(-1) for slope in slopes], -1)
    return found


def in_field(earlier: tuple[int, int, int], later: tuple[int, int, int]) -> bool:
    """PixelCNN's receptive field, for a reach of one row and one column a layer."""
    up, left = later[0] - earlier[0], later[1] - earlier[1]
    if up == left == 0:
        return earlier[2] < later[2]
    if up == 0:
        return 1 <= left <= LAYERS + 1
    return 1 <= up <= LAYERS + 1 and abs(left) <= LAYERS


@all_sizes
def test_pixelcnn_sees_all_of_its_field_and_nothing_else(sizes: tuple[int, ...]) -> None:
    """Nothing of the future, and no blind spot: on a grid that is larger than the field in each direction."""
    prior = pixelcnn(sizes).double()
    codes = random_codes(sizes, 1, 5, 7)
    for place, found in influence(prior, prior.embeddings, codes).items():
        expected = [in_field(other, place) for other in places(*codes.shape[1:])]
        assert found.flatten().tolist() == expected, place


@all_sizes
@pytest.mark.parametrize("shape", [(3, 4), (1, 6)], ids=str)
def test_transformer_sees_every_code_before_and_none_after(sizes: tuple[int, ...], shape: tuple[int, int]) -> None:
    prior = transformer(sizes).double()
    codes = random_codes(sizes, 1, *shape)
    for place, found in influence(prior, prior.embeddings, codes).items():
        expected = [other < place for other in places(*codes.shape[1:])]
        assert found.flatten().tolist() == expected, place


@both
def test_every_position_sees_the_class_and_the_whole_top_level(build: Build) -> None:
    prior = build((3, 4), **CONDITIONAL).double()
    codes, condition = random_codes((3, 4), 1, 4, 6), random_condition(1, 4, 6)
    for table in (nn.ModuleList([prior.condition_map.label]), prior.condition_map.top):
        for place, found in influence(prior, table, codes, condition).items():
            assert found.all(), place


def test_positions_under_one_top_code_have_conditions_of_their_own() -> None:
    context = ConditionMap(8, top_sizes=(3,), top_factor=3)(
        Condition(top=torch.zeros(1, 1, 1, 1).long()), 1, (3, 3)
    )
    assert context.flatten(2).unique(dim=2).shape == (1, 8, 9)


# One step at a time


def follow(prior: Prior, codes: Tensor, condition: Condition | None, look: bool = True) -> list[Tensor]:
    """The logits of all steps with these codes; without `look`, those of the last step alone."""
    steps = prior.start(len(codes), tuple(codes.shape[1:3]), condition)
    logits = []
    for row, column, codebook in places(*codes.shape[1:]):
        assert steps.position == (row, column, codebook)
        if look or steps.left == 1:
            logits.append(steps.logits())
        steps.append(codes[:, row, column, codebook])
    assert steps.left == 0
    return logits


@both
@all_sizes
@pytest.mark.parametrize("shape", [(4, 6), (1, 7), (5, 1)], ids=str)
@pytest.mark.parametrize("conditional", [False, True])
def test_steps_give_the_logits_of_the_whole_grid(
    build: Build, sizes: tuple[int, ...], shape: tuple[int, int], conditional: bool
) -> None:
    """Up to the order of sums: in float64, where the roundings are 2²⁹ times smaller than in float32.

    What they come to in this network is measured: by how much its float32 forward is off. 2¹⁰ times as much is
    allowed for chance. A code that is forgotten, or in another place, is not as small as a rounding.
    """
    options = {"classes": 4, "top_sizes": (3, 2), "top_factor": 1} if conditional else {}
    prior = sharpen(build(sizes, **options), 1.5)
    codes = random_codes(sizes, 3, *shape)
    condition = Condition(torch.randint(4, (3,)), random_codes((3, 2), 3, *shape)) if conditional else None
    with torch.no_grad():
        single = prior(codes, condition)
        forward = prior.double()(codes, condition)
    off = max(float((one - other).abs().max()) for one, other in zip(single, forward, strict=True))
    allowed = off * 2.0 ** (10 - 29)
    for (row, column, codebook), logits in zip(
        places(*codes.shape[1:]), follow(prior, codes, condition), strict=True
    ):
        assert (logits - forward[codebook][:, row, column]).abs().max() <= allowed


@both
def test_steps_are_the_same_bits_each_time(build: Build) -> None:
    """As a decoder needs that follows an encoder: from codes that lie otherwise in memory, looked at or not."""
    prior = build((3, 5), **CONDITIONAL)
    codes, condition = random_codes((3, 5), 2, 4, 6), random_condition(2, 4, 6)
    first = follow(prior, codes, condition)
    turned = Condition(condition.label, condition.top.mT.contiguous().mT)
    again = follow(prior, codes.mT.contiguous().mT, turned)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    (last,) = follow(prior, codes, condition, look=False)
    assert torch.equal(last, first[-1])


@both
def test_steps_keep_nothing_for_a_gradient(build: Build) -> None:
    prior = build((3, 5), **CONDITIONAL)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda packed: packed):
        logits = follow(prior, random_codes((3, 5), 2, 4, 6), random_condition(2, 4, 6))
    assert not kept
    assert not any(of_step.requires_grad for of_step in logits)


def operations(work: Callable[[], object]) -> int:
    # The fused attention for CPUs is not counted; the one that is made of matrix products is.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def step_costs(prior: Prior, codes: Tensor, condition: Condition | None = None) -> list[int]:
    """Of the start, and of each step."""
    shape = tuple(codes.shape[1:3])
    costs = [operations(lambda: prior.start(len(codes), shape, condition))]
    steps = prior.start(len(codes), shape, condition)
    for row, column, codebook in places(*codes.shape[1:]):
        costs.append(operations(steps.logits))
        assert operations(steps.logits) == 0
        steps.append(codes[:, row, column, codebook])
    return costs


def test_pixelcnn_steps_cost_the_same_everywhere() -> None:
    """A row's first position brings the vertical stack's row. All steps together cost one forward, to the flop."""
    prior = pixelcnn((3, 5), **CONDITIONAL)
    codes, condition = random_codes((3, 5), 2, 4, 6), random_condition(2, 4, 6)
    costs = step_costs(prior, codes, condition)
    rows = torch.tensor(costs[1:]).view(4, 6, 2)
    assert (rows == rows[0]).all()
    assert (rows[:, 1:, 0] == rows[0, 1, 0]).all()
    assert (rows[..., 1] == rows[0, 0, 1]).all()
    assert sum(costs) == operations(lambda: prior(codes, condition))


def test_transformer_steps_cost_grows_by_one_key_and_value() -> None:
    prior = transformer((3, 3))
    costs = torch.tensor(step_costs(prior, random_codes((3, 3), 2, 4, 6))[1:])
    # A key is multiplied with the query, a value with its weight: 2 · 2 flops a channel, image and block.
    assert (costs.diff() == 2 * 2 * 8 * 2 * len(prior.blocks)).all()


# Bits


def every_sequence(sizes: tuple[int, ...], height: int, width: int) -> Tensor:
    """All grids of codes there are: [N, h, w, n]."""
    ranges = [range(size) for _ in range(height * width) for size in sizes]
    return torch.tensor(list(itertools.product(*ranges))).view(-1, height, width, len(sizes))


def probabilities(prior: Prior, codes: Tensor, condition: Condition | None = None, **filters: float) -> Tensor:
    """Of each image's codes: the product of the (filtered) probabilities, one place after another. [B] float64"""
    with torch.no_grad():
        logits = prior(codes, condition)
    result = torch.ones(len(codes), dtype=torch.float64)
    for row, column, codebook in places(*codes.shape[1:]):
        weights = filter_logits(logits[codebook][:, row, column].double(), **filters).exp()
        chosen = weights.gather(1, codes[:, row, column, codebook, None])[:, 0]
        result *= chosen / weights.sum(1)
    return result


@both
@pytest.mark.parametrize(
    ("sizes", "shape"), [((2, 3), (1, 2)), ((3,), (2, 2)), ((1, 2), (2, 2)), ((2,), (3, 2))], ids=str
)
def test_probabilities_of_all_sequences_sum_to_one(
    build: Build, sizes: tuple[int, ...], shape: tuple[int, int]
) -> None:
    prior = sharpen(build(sizes, classes=2), 1.5).double()
    codes = every_sequence(sizes, *shape)
    condition = Condition(torch.ones(len(codes), dtype=torch.int64))
    with torch.no_grad():
        bits = prior.bits(codes, condition)
        size = max(float(logits.abs().max()) for logits in prior(codes, condition))
    assert bits.shape == (len(codes),)
    eps = torch.finfo(torch.float64).eps
    # A log-probability is a sum of a few terms below size + log K. Relative to it, 2^(−bits) is off by T of these.
    tolerance = 16 * math.prod(shape) * len(sizes) * (size + 2) * eps
    expected = probabilities(prior, codes, condition)
    assert ((2**-bits - expected).abs() <= tolerance * expected).all()
    # In a sum over sequences, a network's logits after the same codes must agree: they differ by the roundings of
    # sums of about 2⁶ terms, in each of about 2⁴ products one after another.
    assert abs((2**-bits).sum() - 1) <= tolerance + 2**10 * math.prod(shape) * len(sizes) * eps


@both
def test_training_finds_the_distribution(build: Build) -> None:
    """One of four codes, everywhere the same, in both codebooks: two bits. No model of it has fewer on average."""
    prior = build((4, 4)).train()
    codes = torch.arange(4)[:, None, None, None].expand(-1, 2, 3, 2)
    optimizer = torch.optim.Adam(prior.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        bits = prior.bits(codes).mean()
        assert bits >= 2 - 1e-3  # Gibbs' inequality; float32 has roundings
        bits.backward()
        optimizer.step()
    assert bits < 2.2


@both
def test_every_weight_has_a_part_in_the_bits(build: Build) -> None:
    """Of each table every row, of each layer every output: but what the vertical stack's last layer adds up."""
    prior = build((3, 5), **CONDITIONAL)
    condition = Condition(torch.arange(4), random_codes((3, 2), 4, 3, 4))
    prior.bits(random_codes((3, 5), 4, 6, 8), condition).sum().backward()
    for name, parameter in prior.named_parameters():
        used = (parameter.grad != 0).flatten(1).any(1) if parameter.dim() > 1 else (parameter.grad != 0).any()
        if name == f"layers.{LAYERS - 1}.context.weight":
            used = used[2 * prior.width :]
        assert used.all(), name


@both
def test_dropout_is_for_training(build: Build) -> None:
    torch.manual_seed(1)
    plain = build((3, 5))
    torch.manual_seed(1)
    prior = build((3, 5), dropout=0.5)
    codes = random_codes((3, 5), 2, 3, 4)
    assert torch.equal(prior.bits(codes), plain.bits(codes))
    prior.train()
    assert not torch.equal(prior.bits(codes), prior.bits(codes))
    with pytest.raises(RuntimeError, match=r"in training mode.*eval\(\)"):
        prior.start(1, (2, 2))


# Samples


@both
@pytest.mark.parametrize("filters", [{}, {"temperature": 0.6, "top_k": 2}, {"top_p": 0.7}], ids=str)
def test_samples_are_as_frequent_as_their_probabilities(build: Build, filters: dict[str, float]) -> None:
    """Pearson's χ² over all sequences, for each of two classes.

    P(χ²_d ≥ d + 2√(d x) + 2x) ≤ e^(−x) (Laurent & Massart 2000, lemma 1); x = 14 is one in a million.
    """
    draws, x = 8_000, 14
    prior = sharpen(build((2, 3), classes=2), 2.0)
    label = torch.arange(2).repeat_interleave(draws)
    generator = torch.Generator().manual_seed(5)
    codes = sample(prior, 2 * draws, (1, 2), Condition(label), **filters, generator=generator)
    sequences = every_sequence((2, 3), 1, 2)
    for c, drawn in enumerate(codes.split(draws)):
        expected = draws * probabilities(prior, sequences, Condition(torch.full((36,), c)), **filters)
        counts = (drawn[:, None] == sequences).flatten(2).all(-1).sum(0)
        assert counts.sum() == draws
        assert (counts[expected == 0] == 0).all()
        common = expected >= 5
        assert expected[~common].sum() <= 0.01 * draws  # what is too rare for χ² hardly matters
        statistic = ((counts - expected) ** 2 / expected)[common].sum()
        freedom = int(common.sum())
        assert statistic <= freedom + 2 * math.sqrt(freedom * x) + 2 * x
        assert expected.max() >= 2 * draws / 36  # far from equal: a draw that ignores the model does not pass


@both
def test_without_a_choice_a_sample_is_the_most_probable_code_each_time(build: Build) -> None:
    prior = sharpen(build((3, 5), **CONDITIONAL), 1.5)
    condition = random_condition(4, 2, 4)
    codes = sample(prior, 4, (2, 4), condition, temperature=0, generator=torch.Generator())
    with torch.no_grad():
        logits = prior(codes, condition)
    assert torch.equal(codes, torch.stack([of_codebook.argmax(-1) for of_codebook in logits], -1))
    one = sample(prior, 4, (2, 4), condition, top_k=1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(one, codes)


@both
def test_a_sample_follows_its_generator_alone(build: Build) -> None:
    prior = build((3, 5))
    first, again, other = (
        sample(prior, 6, (2, 3), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (6, 2, 3, 2)
    assert first.dtype == torch.int64
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# What is refused, and what is not


@both
def test_an_empty_batch_is_a_batch(build: Build) -> None:
    prior = build((3, 5), classes=2)
    codes, condition = torch.zeros(0, 2, 3, 2).long(), Condition(torch.zeros(0).long())
    assert [tuple(logits.shape) for logits in prior(codes, condition)] == [(0, 2, 3, 3), (0, 2, 3, 5)]
    assert prior.bits(codes, condition).shape == (0,)
    assert sample(prior, 0, (2, 3), condition, generator=torch.Generator()).shape == (0, 2, 3, 2)


GOOD = torch.zeros(2, 2, 4, 2, dtype=torch.int64)


def changed(value: int) -> Tensor:
    codes = GOOD.clone()
    codes[1, 1, 2, 1] = value
    return codes


@both
@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (changed(5), "codes hold 5 in codebook 1: expected 0 to 4"),
        (changed(-1), r"codes hold -1 in codebook 1, which marks a vector without a code .*: expected 0 to 4"),
        (changed(-2), "codes hold -2 in codebook 1: expected 0 to 4"),
        (GOOD[..., :1], r"codes have shape \(2, 2, 4, 1\), expected \[B, h, w, 2\]"),
        (GOOD[..., 0], r"codes have shape \(2, 2, 4\), expected \[B, h, w, 2\]"),
        (GOOD[:, :0], r"codes have shape \(2, 0, 4, 2\).* a grid that is not empty"),
        (GOOD.int(), r"codes have dtype torch.int32, expected torch.int64"),
        (GOOD.float(), r"codes have dtype torch.float32, expected torch.int64"),
    ],
)
def test_codes_that_are_none_are_named(build: Build, codes: Tensor, message: str) -> None:
    prior = build((3, 5))
    for use in (prior, prior.bits):
        with pytest.raises(InputError, match=message):
            use(codes)


LABEL = torch.zeros(2, dtype=torch.int64)
TOP = torch.zeros(2, 1, 2, 2, dtype=torch.int64)


@both
@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (None, "the condition has no label, expected one with it"),
        (Condition(LABEL), "the condition has no top, expected one with it"),
        (Condition(top=TOP), "the condition has no label, expected one with it"),
        (Condition(LABEL + 4, TOP), "labels hold 4: expected 0 to 3"),
        (Condition(LABEL - 1, TOP), "labels hold -1, which marks .*: expected 0 to 3"),
        (Condition(LABEL[:1], TOP), r"labels have shape \(1,\), expected \(2,\)"),
        (Condition(LABEL.float(), TOP), "labels have dtype torch.float32"),
        (Condition(LABEL, TOP + 2), "top codes hold 2 in codebook 1: expected 0 to 1"),
        (Condition(LABEL, TOP[:1]), r"top codes have shape \(1, 1, 2, 2\), .* expected 2 of 2 × 4"),
        (Condition(LABEL, TOP[:, :, :1]), r"2 grids of 2 × 2 codes below it, expected 2 of 2 × 4"),
        (Condition(LABEL, TOP[..., :1]), r"top codes have shape \(2, 1, 2, 1\), expected \[B, h, w, 2\]"),
    ],
)
def test_conditions_that_do_not_fit_are_named(build: Build, condition: Condition | None, message: str) -> None:
    prior = build((3, 5), **CONDITIONAL)
    with pytest.raises(InputError, match=message):
        prior(GOOD, condition)
    with pytest.raises(InputError, match=message):
        prior.start(2, (2, 4), condition)


@both
def test_a_condition_that_the_prior_does_not_know_is_named(build: Build) -> None:
    for condition, name in ((Condition(LABEL), "label"), (Condition(top=TOP), "top")):
        with pytest.raises(InputError, match=f"the condition has a {name}, expected one without it"):
            build((3, 5))(GOOD, condition)


@both
def test_steps_that_cannot_be_are_named(build: Build) -> None:
    prior = build((3, 5))
    for shape in ((0, 2), (2,), (2, -1)):
        with pytest.raises(InputError, match=r"expected \(h, w\) of at least 1 each"):
            prior.start(2, shape)
    steps = prior.start(2, (1, 1))
    with pytest.raises(InputError, match=r"codes have shape \(3,\), expected \(2,\)"):
        steps.append(torch.zeros(3).long())
    with pytest.raises(InputError, match="codes hold 3: expected 0 to 2"):
        steps.append(torch.tensor([0, 3]))
    for _ in range(2):  # what was refused has left no trace
        steps.append(torch.zeros(2).long())
    for use in (steps.logits, lambda: steps.append(torch.zeros(2).long())):
        with pytest.raises(RuntimeError, match="all 2 codes of each image are known"):
            use()


def test_a_grid_beyond_the_positions_is_named() -> None:
    prior = transformer((3,))
    message = "the grid is 7 × 8, expected at most 6 × 8"
    with pytest.raises(InputError, match=message):
        prior(torch.zeros(1, 7, 8, 1).long())
    with pytest.raises(InputError, match=message):
        prior.start(1, (7, 8))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PixelCNN(()), "sizes is empty"),
        (lambda: PixelCNN((3, 0)), "each of sizes is 0, expected an integer of at least 1"),
        (lambda: PixelCNN((3,), 0), "width is 0"),
        (lambda: PixelCNN((3,), kernel=4), "kernel is 4, expected an odd number"),
        (lambda: PixelCNN((3,), kernel=1), "kernel is 1, expected an integer of at least 3"),
        (lambda: PixelCNN((3,), layers=0), "layers is 0"),
        (lambda: PixelCNN((3,), classes=0), "classes is 0"),
        (lambda: PixelCNN((3,), top_sizes=()), "top_sizes is empty"),
        (lambda: PixelCNN((3,), top_sizes=(2,), top_factor=0), "top_factor is 0"),
        (lambda: Transformer((3,), 10, heads=4), "width is 10, expected a multiple of heads=4"),
        (lambda: Transformer((3,), layers=0), "layers is 0"),
        (lambda: Transformer((3,), largest=(0, 2)), "each of largest is 0"),
    ],
)
def test_sizes_that_cannot_be_are_named(build: Callable[[], Prior], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
