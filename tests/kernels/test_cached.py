"""A packed codebook is used again while its values are the same, and only then; its history goes with it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.nearest import cached, packed, pruning
from quantizers.kernels.nearest.operation import nearest_code

CHANGES: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda codes: codes.neg_(),
    "through .data": lambda codes: codes.data.neg_(),
    "through numpy": lambda codes: codes.numpy().__imul__(-1),
    "one value": lambda codes: codes[-1, -1:].zero_(),
    "to a NaN": lambda codes: codes[0, :1].fill_(torch.nan),
}


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the codebooks that were packed."""
    sizes: list[int] = []
    pack = packed.pack

    def count(codes: Tensor, bias: Tensor | None = None, order: Tensor | None = None) -> packed.Packed:
        sizes.append(len(codes))
        return pack(codes, bias, order)

    monkeypatch.setattr(cached, "pack", count)
    monkeypatch.setattr(cached, "codebooks", cached.Codebooks(2**20))
    monkeypatch.setattr(pruning, "codebooks", cached.codebooks)
    return sizes


def search(codes: Tensor) -> Tensor:
    with use_implementation("compiled"):
        return nearest_code(torch.ones(1, 1, codes.shape[1]), codes[None])[0]


def test_the_same_codebook_is_packed_once(packs: list[int]) -> None:
    codes = torch.randn(50, 3)
    assert torch.equal(search(codes), search(codes))
    search(codes.view(50, 3))
    assert packs == [50]


def test_a_copy_is_not_packed_again(packs: list[int]) -> None:
    """A codebook that is computed for each search lies elsewhere each time."""
    codes = torch.randn(50, 3)
    search(codes)
    search(codes.clone())
    assert packs == [50]


def test_a_moved_codebook_continues_its_history(packs: list[int]) -> None:
    """In place or computed anew; but not another codebook of the same shape."""
    codes, other = torch.randn(50, 3), torch.randn(50, 3)
    history = cached.codebooks.get(codes).history
    codes.add_(0.01 * torch.randn(50, 3))
    assert cached.codebooks.get(codes).history is history
    assert cached.codebooks.get(codes + 0.01 * torch.randn(50, 3)).history is history
    assert cached.codebooks.get(other).history is not history


def test_codebooks_that_are_alike_keep_their_entries(packs: list[int]) -> None:
    """As of a model and its moving average: each is packed once."""
    codes = torch.randn(50, 3)
    average = codes + 0.01 * torch.randn(50, 3)
    for _ in range(5):
        search(codes)
        search(average)
    assert packs == [50, 50]


def test_computed_codebooks_do_not_pile_up(packs: list[int]) -> None:
    """Values that move, each time at another address."""
    codes, kept = torch.randn(50, 3), []
    for _ in range(20):
        kept.append(codes + 0.01 * torch.randn(50, 3))
        search(kept[-1])
    assert len(cached.codebooks._entries) <= cached.ALIKE


def test_another_codebook_at_the_same_address_has_its_own_history(packs: list[int]) -> None:
    """The memory of a computed codebook is given to the next one."""
    memory, values = torch.empty(50, 3), torch.randn(2, 50, 3)
    histories = [cached.codebooks.get(memory.copy_(codes)).history for codes in values]
    again = [cached.codebooks.get(codes.clone()).history for codes in values]
    assert histories[0] is not histories[1]
    assert all(a is b for a, b in zip(again, histories, strict=True))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_never_missed(packs: list[int], change: str) -> None:
    codes = torch.randn(50, 3)
    search(codes)
    CHANGES[change](codes)
    fresh = search(codes.clone())
    assert torch.equal(search(codes), fresh)


def test_another_codebook_in_the_same_memory(packs: list[int]) -> None:
    """An entry may outlive its codebook; what is allocated there next is not mistaken for it."""
    memory = torch.randn(60)
    first, second = search(memory.view(20, 3)), search(memory.view(30, 2))
    assert torch.equal(first, search(memory.view(20, 3).clone()))
    assert torch.equal(second, search(memory.view(30, 2).clone()))


def test_threads_share_an_entry(packs: list[int]) -> None:
    """Searches at the same time, of one codebook that moves: one history, and one entry in the end."""
    codes = torch.randn(600, 3)
    history = cached.codebooks.get(codes).history
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            codes += 0.01
            expected = search(codes.double())
            assert all(torch.equal(found, expected) for found in pool.map(search, [codes] * 8))
    assert {id(entry.history) for entry in cached.codebooks._entries} == {id(history)}


def test_a_broken_codebook_is_not_stored_again_and_again(packs: list[int]) -> None:
    """NaN equals nothing, so that no entry would be found."""
    codes = torch.full((50, 3), torch.nan)
    for _ in range(5):
        search(codes)
    assert len(cached.codebooks._entries) <= 1


def test_memory_is_bounded(packs: list[int]) -> None:
    many = [torch.randn(1000, 16) for _ in range(30)]
    for codes in many:
        search(codes)
    assert 0 < cached.codebooks.nbytes() <= 2**20
    large = torch.randn(2**16, 8)
    before = cached.codebooks.nbytes()
    search(large)
    assert cached.codebooks.nbytes() == before


def test_the_number_of_codebooks_is_bounded(packs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones too are dropped in time, and the bytes that are counted are those that are kept."""
    monkeypatch.setattr(cached, "CACHE_ENTRIES", 8)
    many = [torch.randn(1 + i % 3, 2) for i in range(20)]
    for codes in many + many[-3:]:
        search(codes)
        search(codes.neg_())
    entries = cached.codebooks._entries
    assert len(entries) == 8
    assert cached.codebooks.nbytes() == sum(entry.nbytes() for entry in entries)
    cached.codebooks.clear()
    assert cached.codebooks.nbytes() == 0
