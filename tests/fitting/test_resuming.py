"""A fit that is interrupted after any pass goes on to the same codes."""

from pathlib import Path

import pytest
import torch

import quantizers
from quantizers.fitting import Progress
from tests.fitting.data import FITTED, build, vectors


class StoppedError(Exception):
    """Ends a fit from outside."""


def interrupted(quantizer: quantizers.Quantizer, after: int, path: Path, **options: object) -> bool:
    """Fit, and stop at the n-th block after the first checkpoint. Returns: whether it came so far."""
    seen = 0

    def stop(_: Progress) -> None:
        nonlocal seen
        seen += path.is_file()
        if seen > after:
            raise StoppedError

    try:
        quantizers.fit(quantizer, vectors(), batch_size=250, progress=stop, checkpoint=path, **options)
    except StoppedError:
        return True
    return False


@pytest.mark.parametrize("setting", [name for name in FITTED if name != "simvq"])
@pytest.mark.parametrize("method", ["nested", "minibatch"])
def test_a_resumed_fit_equals_an_uninterrupted_one(setting: str, method: str, tmp_path: Path) -> None:
    options = {"epochs": 3, "method": method, "seed": 1}
    expected = build(setting)
    report = quantizers.fit(expected, vectors(), batch_size=250, **options)
    path = tmp_path / "checkpoint.pt"
    for after in (0, 7, 23):
        stopped = interrupted(build(setting), after, path, **options)
        assert stopped or after == 23  # a single table needs fewer blocks
        assert path.is_file() == stopped
        quantizer = build(setting)
        resumed = quantizers.fit(quantizer, vectors(), batch_size=250, checkpoint=path, **options)
        assert not path.exists()
        assert all(
            torch.equal(ours, other)
            for ours, other in zip(quantizer.state_dict().values(), expected.state_dict().values(), strict=True)
        )
        assert [each._replace(seconds=0) for each in resumed.history] == [
            each._replace(seconds=0) for each in report.history
        ]
        assert resumed.inertia == report.inertia


def test_the_checkpoint_of_another_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert interrupted(build("vq"), 1, path, seed=1)
    with pytest.raises(ValueError, match="belongs to a fit with another seed; remove the file"):
        quantizers.fit(build("vq"), vectors(), batch_size=250, seed=2, checkpoint=path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a checkpoint of a fit"):
        quantizers.fit(build("vq"), vectors(), checkpoint=path)


def test_a_checkpoint_that_cannot_be_written_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write the checkpoint"):
        quantizers.fit(build("vq"), vectors(), checkpoint=tmp_path / "file" / "checkpoint.pt")
