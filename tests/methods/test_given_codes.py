"""Codes that are given, and codes that stay: bit-equal under every optimizer, average and replacement."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from quantizers import AnchorUpdate, DeadCodeReplacement, Quantizer
from quantizers.training.regularizers import Entropy, Orthogonality, Wasserstein
from tests.cases import normal

SIZE, CHANNELS = 12, 3
TABLES = ["vq", "rotation_vq", "diveq", "nsvq", "ema_vq"]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.5, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.5),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1, weight_decay=0.5, momentum=0.9),
}

every_table = pytest.mark.parametrize("name", TABLES)
masks = st.lists(st.booleans(), min_size=SIZE, max_size=SIZE).map(torch.tensor)
seeds = st.integers(0, 99)


def codes(seed: int = 0, size: int = SIZE) -> Tensor:
    return normal(seed, size, CHANNELS, dtype=torch.float32)


def train(quantizer: Quantizer, make: Callable[[Any], torch.optim.Optimizer], steps: int = 4, **aids: Any) -> None:
    """Steps in which every kind of state moves, on vectors that reach many codes."""
    scale = nn.Parameter(torch.ones(()))
    optimizer = make([*quantizer.parameters(), scale])
    replacements = [aid(quantizer, optimizer, **options) for aid, options in aids.values()]
    for step in range(steps):
        x = scale * normal(step, 40, CHANNELS, dtype=torch.float32)
        out = quantizer(x)
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        (out.loss + out.quantized.square().sum()).backward()
        optimizer.step()
        for replacement in replacements:
            replacement.step()


AIDS: dict[str, Any] = {
    "dead": (DeadCodeReplacement, {"threshold": 100.0, "decay": 0.0}),
    "anchors": (AnchorUpdate, {"decay": 0.0}),
}
"""Which move every code that they may."""


@every_table
@given(
    mask=masks,
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    seed=seeds,
    distance=st.sampled_from(["euclidean", "cosine"]),
)
def test_frozen_codes_are_bit_equal_after_any_steps_and_the_others_move(
    name: str, mask: Tensor, optimizer: str, seed: int, distance: str
) -> None:
    options = {"codebook": codes(seed), "frozen": mask, "distance": distance}
    regularizers = [Entropy(0.5)] if name == "ema_vq" else [Entropy(0.5), Orthogonality(0.5), Wasserstein(0.5)]
    quantizer = quantizers.create(name, CHANNELS, **options, regularizers=regularizers)
    before = quantizer.codebook.detach().clone()
    train(quantizer, OPTIMIZERS[optimizer], **AIDS)
    after = quantizer.codebook.detach()
    assert torch.equal(after[mask], before[mask])
    assert (after != before).any(-1)[~mask].all()


@every_table
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_a_codebook_that_is_frozen_whole_stays_until_it_is_unfrozen(name: str, optimizer: str) -> None:
    quantizer = quantizers.create(name, CHANNELS, codebook=codes(), frozen=True)
    assert quantizer.frozen
    train(quantizer, OPTIMIZERS[optimizer], **AIDS)
    quantizer.initialize_from(codes(5, 40))
    assert torch.equal(quantizer.codebook, codes())
    quantizer.unfreeze()
    train(quantizer, OPTIMIZERS[optimizer])
    assert not torch.equal(quantizer.codebook, codes())


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_freezing_between_a_backward_and_its_step_stops_the_step(optimizer: str) -> None:
    quantizer = quantizers.create("vq", CHANNELS, codebook=codes())
    steps = OPTIMIZERS[optimizer](quantizer.parameters())
    quantizer(codes(1, 40)).loss.backward()
    quantizer.freeze()
    steps.step()
    assert torch.equal(quantizer.codebook, codes())


@every_table
@given(mask=masks, seed=seeds)
def test_k_means_places_the_codes_that_learn_alone(name: str, mask: Tensor, seed: int) -> None:
    quantizer = quantizers.create(name, CHANNELS, codebook=codes(seed), frozen=mask)
    x = normal(seed, 60, CHANNELS, dtype=torch.float32) + 100
    quantizer.initialize_from(x)
    placed = quantizer.codebook.detach()
    assert torch.equal(placed[mask], codes(seed)[mask])
    assert (placed[~mask] > 50).all()


@every_table
def test_the_search_sees_all_codes(name: str) -> None:
    """The same outputs as without a mask, before anything moves."""
    masked = quantizers.create(name, CHANNELS, codebook=codes(), frozen=torch.arange(SIZE) % 2 == 0).eval()
    plain = quantizers.create(name, CHANNELS, codebook=codes()).eval()
    for ours, theirs in zip(masked(codes(3, 50)), plain(codes(3, 50)), strict=True):
        assert torch.equal(ours, theirs)


@every_table
@given(mask=masks)
def test_a_gradient_reaches_the_codes_that_learn_alone(name: str, mask: Tensor) -> None:
    quantizer = quantizers.create(name, CHANNELS, codebook=codes(), frozen=mask)
    (quantizer.codebook.square().sum() + quantizer(codes(1).requires_grad_()).loss).backward()
    for parameter in quantizer.parameters():
        assert not parameter.grad[mask].any()
        assert parameter.grad[~mask].any(-1).all()


COPIES: dict[str, Callable[[Quantizer], Quantizer]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda quantizer: pickle.loads(pickle.dumps(quantizer)),
    "state_dict": lambda quantizer: loaded(quantizers.rebuild(quantizers.configuration(quantizer)), quantizer),
}


def loaded(into: Quantizer, source: Quantizer) -> Quantizer:
    into.load_state_dict(source.state_dict())
    return into


@every_table
@pytest.mark.parametrize("way", COPIES)
@given(mask=masks)
def test_copies_keep_codes_and_mask(name: str, way: str, mask: Tensor) -> None:
    quantizer = quantizers.create(name, CHANNELS, codebook=codes(), frozen=mask)
    train(quantizer, OPTIMIZERS["AdamW"], steps=1)
    copied = COPIES[way](quantizer)
    assert torch.equal(copied.codebook, quantizer.codebook)
    train(copied, OPTIMIZERS["AdamW"], **AIDS)
    assert torch.equal(copied.codebook[mask], codes()[mask])
    assert (copied.codebook != quantizer.codebook).any(-1)[~mask].all()


@every_table
@pytest.mark.parametrize("frozen", [True, torch.arange(SIZE) < 5], ids=["all", "mask"])
def test_saving_and_loading_needs_neither_codes_nor_mask(name: str, frozen: Any, tmp_path: Path) -> None:
    quantizer = quantizers.create(name, CHANNELS, codebook=codes(), frozen=frozen)
    saved = quantizers.configuration(quantizer)
    assert (saved["arguments"]["codebook"], saved["arguments"]["codebook_size"]) == (None, SIZE)
    quantizers.save(quantizer, tmp_path)
    again = quantizers.load(tmp_path).train()
    train(again, OPTIMIZERS["AdamW"])
    stays = torch.as_tensor(frozen).expand(SIZE)
    assert torch.equal(again.codebook[stays], codes()[stays])


@every_table
@pytest.mark.parametrize("frozen", [False, True, torch.arange(SIZE) < 5], ids=["none", "all", "mask"])
def test_reset_parameters_gives_the_codes_and_the_mask_again(name: str, frozen: Any) -> None:
    first = codes()
    with torch.device("meta"):
        quantizer = quantizers.create(name, CHANNELS, codebook=first, frozen=frozen)
    quantizer.to_empty(device="cpu").reset_parameters()
    assert torch.equal(quantizer.codebook, codes())
    train(quantizer, OPTIMIZERS["AdamW"])
    stays = torch.as_tensor(frozen).expand(SIZE)
    assert torch.equal(quantizer.codebook[stays], codes()[stays])
    assert (quantizer.codebook != codes()).any(-1)[~stays].any() or stays.all()


@every_table
def test_the_codes_are_copied(name: str) -> None:
    mine = codes()
    quantizer = quantizers.create(name, CHANNELS, codebook=mine)
    mine.zero_()
    quantizer.reset_parameters()
    assert torch.equal(quantizer.codebook, codes())


@every_table
def test_set_codebook_sets_frozen_codes_too(name: str) -> None:
    quantizer = quantizers.create(name, CHANNELS, codebook=codes(), frozen=torch.arange(SIZE) < 5)
    quantizer.set_codebook(codes(1))
    assert torch.equal(quantizer.codebook, codes(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_floating_dtype_is_taken(dtype: torch.dtype) -> None:
    quantizer = quantizers.create("vq", CHANNELS, codebook=codes().to(dtype), frozen=True)
    assert torch.equal(quantizer.codebook, codes().to(dtype).float())


@every_table
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"codebook": codes().repeat(1, 2)}, ValueError, r"codebook has shape \(12, 6\), expected \(12, 3\)"),
        ({"codebook": codes()[0]}, ValueError, r"codebook has shape \(3,\), expected \[K, C\]"),
        ({"codebook": codes()[:0]}, ValueError, r"codebook has shape \(0, 3\), expected \[K, C\]"),
        ({"codebook": codes().log()}, ValueError, "codebook contains values that are not finite"),
        ({"codebook": codes() / 0}, ValueError, "codebook contains values that are not finite"),
        ({"codebook": codes().long()}, TypeError, r"codebook has dtype torch.int64, expected a floating dtype"),
        ({"codebook": codes().to("meta")}, ValueError, "codebook is on the meta device"),
        ({"codebook": codes().tolist()}, TypeError, "codebook is of type list, expected a tensor"),
        ({"codebook": codes(), "codebook_size": 5}, ValueError, "codebook_size is 5, but codebook has 12 rows"),
        ({}, TypeError, "is missing codebook_size; it got no codebook"),
        ({"codebook": codes(), "frozen": torch.ones(5) > 0}, ValueError, r"frozen has shape \(5,\), expected"),
        ({"codebook": codes(), "frozen": torch.ones(SIZE)}, TypeError, "frozen has dtype torch.float32"),
        ({"codebook": codes(), "frozen": "some"}, TypeError, "frozen is 'some', expected True, False or a mask"),
        ({"codebook_size": 4, "frozen": (torch.ones(4) > 0).to("meta")}, ValueError, "frozen is on the meta"),
    ],
)  # fmt: skip
def test_errors_are_sentences(name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quantizers.create(name, CHANNELS, **options)
