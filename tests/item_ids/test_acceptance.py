"""Deferred acceptance gives what taking the nearest pair again and again gives."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.item_ids.acceptance import accept


def nearest_pairs(groups: Tensor, candidates: Tensor, distances: Tensor, room: Tensor) -> Tensor:
    """Take the nearest pair of an item without a code and a code with room, until there is none."""
    room, chosen = room.clone(), torch.full((len(groups),), -1)
    pairs = [
        (float(distances[item, place]), item, place)
        for item in range(candidates.shape[0])
        for place in range(candidates.shape[1])
    ]
    for _, item, place in sorted(pairs):
        slot = int(groups[item]), int(candidates[item, place])
        if slot[1] >= 0 and chosen[item] < 0 and room[slot] > 0:
            chosen[item] = slot[1]
            room[slot] -= 1
    return chosen


@st.composite
def requests(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count, size, groups = draw(st.integers(0, 30)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    width = draw(st.integers(1, size))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    of_item = torch.randint(groups, (count,), generator=generator)
    candidates = torch.stack(
        [torch.randperm(size, generator=generator)[:width] for _ in range(count)]
        or [torch.empty(width, dtype=torch.int64)]
    )[:count]
    candidates[torch.rand(candidates.shape, generator=generator) < 0.1] = -1
    distances = torch.randperm(count * width, generator=generator).reshape(count, width).double()
    room = torch.randint(-1, 4, (groups, size), generator=generator)
    return of_item, candidates, distances, room


@given(request=requests())
def test_it_is_taking_the_nearest_pair_again_and_again(request: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    assert torch.equal(accept(*request), nearest_pairs(*request))


@given(count=st.integers(1, 20), room=st.integers(0, 25))
def test_among_equal_distances_the_first_item_has_precedence(count: int, room: int) -> None:
    zeros = torch.zeros(count, 1)
    codes = accept(torch.zeros(count, dtype=torch.int64), zeros.long(), zeros, torch.tensor([[room]]))
    assert codes.tolist() == [0] * min(room, count) + [-1] * max(0, count - room)
