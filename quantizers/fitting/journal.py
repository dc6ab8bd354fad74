"""The record of a fit: its history, its progress, and the checkpoint from which it resumes."""

import io
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantizers.clustering.seeding import Group
from quantizers.core.base import Quantizer
from quantizers.core.parallel import rank_in
from quantizers.fitting.report import OnProgress, Pass, Progress
from quantizers.fitting.statistics import Statistics
from quantizers.vectors.files import NewFile

VERSION = 1


class Journal:
    """What a fit records.

    Args:
        root: the quantizer, whose state a checkpoint contains.
        settings: what must be equal for a fit to resume, as JSON-like values.
        path: of the checkpoint; None for none. group: the ranks, of which the first one writes.
        on_progress: called after each block of vectors; None for silence.
    """

    def __init__(
        self,
        root: Quantizer,
        settings: dict[str, Any],
        path: Path | None,
        group: Group,
        on_progress: OnProgress | None,
    ) -> None:
        self._root, self._settings, self._path, self._rank = root, settings, path, rank_in(group)
        self._on_progress = on_progress
        self.started = time.perf_counter()
        self.history: list[Pass] = []
        self.codebook, self.codebooks = 0, len(root.codebook_sizes)

    def resume(self) -> dict[str, Any]:
        """Load the checkpoint, if there is one.

        Returns: what `save` got, for the table in work; empty at the beginning.

        Raises: ValueError for a file that is no checkpoint of this fit.
        """
        if self._path is None or not self._path.is_file():
            return {}
        try:
            stored = torch.load(self._path, map_location="cpu", weights_only=True)
            settings = stored["settings"]
        except Exception as error:
            raise ValueError(f"checkpoint is {str(self._path)!r}, which is not a checkpoint of a fit") from error
        different = sorted(key for key in self._settings if settings.get(key) != self._settings[key])
        if different:
            raise ValueError(
                f"checkpoint is {str(self._path)!r}, which belongs to a fit with another {', '.join(different)}; "
                "remove the file to begin again"
            )
        self._root.load_state_dict(stored["quantizer"])
        self.history = [Pass(*each) for each in stored["history"]]
        state: dict[str, Any] = stored["state"]
        return state

    def save(self, table: int, epoch: int, codes: Tensor, **state: Tensor) -> None:
        """Write a checkpoint: the codes of one table after an epoch, and the state of the method."""
        if self._path is None or self._rank:
            return
        stored = {
            "version": VERSION,
            "settings": self._settings,
            "quantizer": self._root.state_dict(),
            "history": [tuple(each) for each in self.history],
            "state": {"table": table, "epoch": epoch, "codes": codes, **state},
        }
        content = io.BytesIO()
        torch.save(stored, content)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with NewFile(self._path) as file:
                file.write(content.getbuffer())
        except OSError as error:
            raise OSError(
                f"cannot write the checkpoint {str(self._path)!r}: {error}; the fit can resume from the one before"
            ) from error

    def remove(self) -> None:
        """Remove the checkpoint of a fit that is complete."""
        if self._path is not None and not self._rank:
            self._path.unlink(missing_ok=True)

    def record(self, phase: str, found: Statistics) -> None:
        """Add a pass to the history. Args: found: its sums, over all ranks."""
        seconds = time.perf_counter() - self.started
        self.history.append(Pass(self.codebook, phase, found.vectors, found.inertia, found.used, seconds))

    def counted(self, phase: str, blocks: Iterable[Tensor], total: int | None) -> Iterator[Tensor]:
        """The blocks, with a call of `on_progress` after each."""
        done = 0
        self.tell(phase, done, total)
        for block in blocks:
            yield block
            done += len(block)
            self.tell(phase, done, total)

    def tell(self, phase: str, done: int, total: int | None) -> None:
        """Call `on_progress`."""
        if self._on_progress is not None:
            last = self.history[-1] if self.history and self.history[-1].codebook == self.codebook else None
            inertia, used = (last.inertia, last.used) if last else (None, None)
            self._on_progress(Progress(self.codebook, self.codebooks, phase, done, total, inertia, used))
