"""Watching a model: which quantizers count, what, how often, and what is left behind."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import quantizers
from quantizers import EMAVectorQuantizer, MultiScaleQuantizer, VectorQuantizer, metrics
from quantizers.monitoring.usage import CodebookUsage
from quantizers.monitoring.watch import Watch, watch
from tests.cases import DIM, Case, batch, cases_where
from tests.synchronisation import NoSynchronisation


class Model(nn.Module):
    """Two quantizers, one of them with stages."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = quantizers.create("residual", dim=DIM, codebook_size=16, num_quantizers=2)
        self.coarse = EMAVectorQuantizer(DIM, 8)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        fine, coarse = self.fine(x, mask), self.coarse(x)
        return fine.quantized + coarse.quantized + fine.loss + coarse.loss


def counted(watched: Watch) -> dict[str, list[int]]:
    """How many indices of each codebook have counted."""
    return {name: [int(counts.sum()) for counts in usage.counts] for name, usage in watched.usage.items()}


@cases_where(lambda case: case.has_codes and (not case.options or case.build().composed))
def test_every_quantizer_counts_what_it_gives(case: Case) -> None:
    """By stage, in forward and `encode`; what is masked or not finite does not count."""
    quantizer = case.build()
    x, mask = batch(2, 15), torch.rand(2, 15) > 0.3
    x[1, 3] = torch.nan
    with watch(quantizer) as watched:
        given = [quantizer(x, mask).indices, quantizer.encode(x), quantizer(batch(0)).indices]
        given.append(quantizer.eval()(x, mask).indices)
    rows = torch.cat([indices.reshape(-1, quantizer.num_codebooks) for indices in given])
    counts = watched.usage[""].counts
    sizes = quantizer.codebook_sizes
    assert sum(counted(watched)[""]) == int((rows >= 0).sum()) > 0
    for column, own, size in zip(rows.T, counts, sizes, strict=True):
        assert torch.equal(own, metrics.code_counts(column, size))


@pytest.mark.parametrize("channel_dim", [-1, 1])
def test_scales_count_apart(channel_dim: int) -> None:
    parts = [VectorQuantizer(DIM, size) for size in (3, 5)]
    quantizer = MultiScaleQuantizer(DIM, parts, scales=[0.5, 1.0], axes=2, channel_dim=channel_dim)
    x = batch(3, 4, 6).movedim(-1, channel_dim)
    with watch(quantizer) as watched:
        indices = quantizer(x).indices
    maps = quantizer.split(indices, (4, 6))
    for tokens, counts, size in zip(maps, watched.usage[""].counts, (3, 5), strict=True):
        assert torch.equal(counts, metrics.code_counts(tokens, size))
    assert counted(watched) == {"": [3 * 2 * 3, 3 * 4 * 6]}


def test_groups_of_stages_are_counted_in_the_order_of_their_indices() -> None:
    stages = quantizers.ResidualQuantizer(2, [VectorQuantizer(2, 3), VectorQuantizer(2, 7)])
    quantizer = quantizers.GroupedQuantizer(4, [stages, VectorQuantizer(2, 5)])
    assert quantizer.codebook_sizes == (3, 7, 5)
    with watch(quantizer) as watched:
        indices = quantizer(batch(50)).indices
    usage = CodebookUsage.of(quantizer)
    usage.update(indices)
    for own, theirs in zip(usage.counts, watched.usage[""].counts, strict=True):
        assert torch.equal(own, theirs)


def test_fewer_stages_of_an_encode_count_as_many() -> None:
    quantizer = Model().fine
    with watch(quantizer) as watched:
        quantizer.encode(batch(10), num_codebooks=1)
        quantizer.forward_stages(batch(5))
    assert counted(watched) == {"": [15, 5]}


def test_names_stages_and_numbers_of_a_model() -> None:
    model = Model()
    with watch(model) as watched, torch.no_grad():
        model(batch(30))
        model.fine.encode(batch(2))
    assert counted(watched) == {"fine": [32, 32], "coarse": [30]}
    results = watched.compute()
    scalars = watched.scalars("train/")
    assert results["fine"]["perplexity"].shape == (2,)
    assert scalars["train/fine/1/perplexity"] == float(results["fine"]["perplexity"][1])
    assert scalars["train/coarse/dead_codes"] == int(results["coarse"]["dead_codes"])
    assert scalars["train/fine/0/vectors"] == 32
    assert len(scalars) == 6 * 3
    keys = {"utilization", "perplexity", "entropy", "dead_codes", "vectors", "possible"}
    assert set(watch(VectorQuantizer(2, 2)).scalars()) == keys


def test_the_table() -> None:
    model = nn.ModuleDict({"q": quantizers.GroupedQuantizer(2, [quantizers.FSQ(1, [4]), quantizers.FSQ(1, [2])])})
    with watch(model) as watched:
        model["q"](torch.tensor([[-9.0, -9.0], [9.0, -9.0]]))
    assert watched.table() == (
        "quantizer  codebook  codes  vectors  used %  max %  perplexity  bits/code  dead\n"
        "q                 0      4        2    50.0   50.0         2.0       1.00     2\n"
        "q                 1      2        2    50.0  100.0         1.0       0.00     1"
    )
    assert "\n(model)    " in watch(VectorQuantizer(2, 2)).table()


def test_the_table_names_scales_and_says_how_many_vectors_each_had() -> None:
    parts = [VectorQuantizer(DIM, size) for size in (8, 4)]
    quantizer = MultiScaleQuantizer(DIM, parts, scales=[0.25, 1.0], axes=2)
    with watch(quantizer) as watched:
        quantizer(batch(3, 4, 4))
    lines = [line.split() for line in watched.table().splitlines()]
    assert [line[:5] for line in lines[1:]] == [
        ["(model)", "scale", "1/4", "8", "3"],
        ["(model)", "scale", "1", "4", "48"],
    ]
    assert [line[6] for line in lines[1:]] == ["37.5", "100.0"]
    results = watched.compute()[""]
    assert results["vectors"].tolist() == [3, 48]
    assert results["possible"].tolist() == [0.375, 1.0]
    assert (results["utilization"] <= results["possible"]).all()


def test_each_epoch_counts_from_zero_and_each_mode_by_itself() -> None:
    model = Model()
    every, training, evaluation = watch(model), watch(model, training=True), watch(model, training=False)
    for _ in range(2):
        for watched in (every, training, evaluation):
            watched.reset()
        model.train()
        model(batch(5))
        model.eval()
        model(batch(3))
        assert [counted(w)["coarse"] for w in (every, training, evaluation)] == [[8], [5], [3]]


def test_what_is_returned_stays_as_it_is() -> None:
    quantizer = VectorQuantizer(DIM, 4)
    watched = watch(quantizer)
    quantizer(batch(3))
    usage = watched.usage[""]
    usage.update(torch.tensor([0]))
    quantizer(batch(2))
    watched.reset()
    assert int(usage.slots.sum()) == 4
    assert counted(watched) == {"": [0]}


def test_a_quantizer_without_codes_is_left_out() -> None:
    model = nn.ModuleList([quantizers.Identity(DIM), VectorQuantizer(DIM, 4)])
    assert list(watch(model).compute()) == ["1"]
    assert watch(quantizers.Identity(DIM)).scalars() == {}


def test_memory_that_comes_later_is_counted_in() -> None:
    """A model that was made on the meta device, and ran there."""
    with torch.device("meta"):
        quantizer = VectorQuantizer(DIM, 4)
    watched = watch(quantizer)
    quantizer(torch.empty(3, DIM, device="meta"))
    quantizer.to_empty(device="cpu").reset_parameters()
    quantizer(batch(5))
    assert counted(watched) == {"": [5]}


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "non-reentrant"])
def test_a_checkpointed_forward_counts_once(reentrant: bool) -> None:
    model, x = Model(), batch(30).requires_grad_()
    with watch(model) as watched:
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
        model.fine.encode(x)
    assert counted(watched) == {"fine": [60, 60], "coarse": [30]}


def test_a_compiled_model_counts_whether_compiled_before_or_after() -> None:
    """One graph, until the watch is removed, and with a checkpoint inside."""

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantizer = EMAVectorQuantizer(DIM, 8)

        def forward(self, x: Tensor) -> Tensor:
            quantized: Tensor = checkpoint(lambda x: self.quantizer(x).quantized, x, use_reentrant=False)
            return quantized

    model, x = Checkpointed(), batch(10).requires_grad_()
    run = torch.compile(model, fullgraph=True, backend="aot_eager")
    run(x).sum().backward()
    first = watch(model)
    run(x).sum().backward()
    second = watch(model)
    run(x).sum().backward()
    first.remove()
    run(x).sum().backward()
    assert counted(first) == {"quantizer": [20]}
    assert counted(second) == {"quantizer": [20]}
    second.reset()
    run(x).sum().backward()
    assert counted(second) == {"quantizer": [10]}


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")  # PyTorch's own
def test_an_exported_program_does_not_count() -> None:
    quantizer, x = quantizers.FSQ(2, [3, 3]), torch.randn(5, 2)
    watched = watch(quantizer)
    program = torch.export.export(quantizer, (x,))
    assert torch.equal(program.module()(x).indices, quantizer(x).indices)
    assert counted(watched) == {"": [5]}


def test_a_watch_leaves_nothing_behind_and_comes_along_with_no_copy() -> None:
    def saved(model: nn.Module) -> bytes:
        file = io.BytesIO()
        torch.save(model, file)
        return file.getvalue()

    model = Model()
    keys, size = list(model.state_dict()), len(saved(model))
    watched = watch(model)
    assert list(model.state_dict()) == keys
    assert len(saved(model)) == size
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model.fine)):
        other(batch(3))
    assert counted(watched) == {"fine": [0, 0], "coarse": [0]}
    with watched:
        model(batch(3))
    model(batch(3))
    assert counted(watched) == {"fine": [3, 3], "coarse": [3]}
    for module in model.modules():
        assert not module._forward_hooks
        assert not getattr(module, "_code_hooks", ())
    assert len(saved(model)) == size
    another, own = watch(model), watch(model)
    own.remove()
    model(batch(2))
    assert counted(another)["coarse"] == [2]


def test_a_watched_forward_does_not_wait_for_the_device() -> None:
    quantizer, x = Model().fine, batch(5)
    watched = watch(quantizer)
    with NoSynchronisation():
        quantizer.encode(x)
        quantizer(x)
    assert counted(watched) == {"": [10, 10]}


def test_inference_mode_counts_and_leaves_counting_possible() -> None:
    quantizer = VectorQuantizer(DIM, 8)
    with torch.inference_mode():
        watched = watch(quantizer)
        quantizer(batch(7))
        watched.reset()
        quantizer(batch(3))
    quantizer(batch(3))
    assert counted(watched) == {"": [6]}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(quantizers.LFQ(30, 2**30)), "quantizer '0': codebook_size is"),
        (nn.Linear(2, 2), "model is Linear, which contains no quantizer"),
    ],
)
def test_a_model_that_cannot_be_watched_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        watch(model)
