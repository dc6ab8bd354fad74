"""`fit` over ranks: the codes of one process on all their vectors, bit-equal on each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import quantizers
from quantizers.fitting import FitReport
from tests.distributed.ranks import Ranks, World
from tests.fitting.data import SIZE, build, vectors

Found = tuple[dict[str, Tensor], FitReport]


def fitted(world: World, data: Any, setting: str, options: dict[str, Any]) -> Found:
    """What this rank gets. Args: data: a path, or the vectors of each rank."""
    torch.manual_seed(world.rank)
    with world.joined():
        return _fit(data if isinstance(data, Path) else data[world.rank], setting, options)


def _fit(data: Any, setting: str, options: dict[str, Any]) -> Found:
    quantizer = build(setting)
    report = quantizers.fit(quantizer, data, batch_size=200, **options)
    return quantizer.state_dict(), report


def assert_equal_on_all_ranks(found: list[Found]) -> None:
    (first, report), *others = found
    for state, other in others:
        assert all(torch.equal(first[name], state[name]) for name in first)
        assert (other.count, other.inertia, other.codebooks) == (report.count, report.inertia, report.codebooks)


@pytest.mark.parametrize("method", ["nested", "lloyd", "minibatch"])
@pytest.mark.parametrize("setting", ["vq", "cosine", "residual", "opq", "shared stages", "multihead"])
def test_a_file_is_divided_among_the_ranks(ranks: Ranks, setting: str, method: str, tmp_path: Path) -> None:
    x = vectors(1003)
    x[[5, 700], 2] = torch.nan
    np.save(tmp_path / "x.npy", x.numpy())
    options = {"method": method, "epochs": 2}
    found = ranks.run(3, fitted, tmp_path / "x.npy", setting, options)
    assert_equal_on_all_ranks(found)
    _, report = _fit(tmp_path / "x.npy", setting, options)
    assert (found[0][1].count, found[0][1].skipped) == (report.count, report.skipped) == (1001, 2)
    assert sorted(row for _, each in found for row in each.skipped_rows) == [5, 700]
    # Sums in another order may move a code by a rounding, and then a vector at a border to another code.
    assert found[0][1].inertia == pytest.approx(report.inertia, rel=1e-2)


def test_ranks_bring_their_own_vectors(ranks: Ranks) -> None:
    x = vectors(900)
    shards = [x[:100], x[100:]]  # uneven
    for method in ("nested", "minibatch"):
        found = ranks.run(2, fitted, shards, "residual", {"method": method, "epochs": 2})
        assert_equal_on_all_ranks(found)
        assert found[0][1].count == 900
        assert found[0][1].relative_error < 0.5
        assert min(use.used for use in found[0][1].codebooks) == SIZE
