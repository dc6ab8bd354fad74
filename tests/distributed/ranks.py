"""Worker processes that play the ranks of a data-parallel run, started once and sent one scenario after another.

A scenario is a function at the top of a module, `scenario(world, *arguments)`: every rank runs it, and the test
gets what each returned. An exception on a rank, or no answer in time, fails the test; then workers are killed,
and the next scenario gets new ones.
"""

import contextlib
import gc
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

GRACE = 2.0  # seconds that the other ranks get to answer once one has failed
# The server imports PyTorch once and forks the workers, before PyTorch has any threads.
START = "forkserver" if sys.platform == "linux" else "spawn"
PRELOADED = ["torch.distributed.fsdp", "torch.nn.parallel", "pytest", "hypothesis", "torchmetrics"]


class DeadlockError(AssertionError):
    """Some ranks did not answer in time."""


class RankError(AssertionError):
    """A scenario raised on some ranks; the message holds their tracebacks."""


class World:
    """What a scenario knows of the run: its rank, how many there are, and where they meet."""

    def __init__(self, rank: int, size: int, meeting_place: str) -> None:
        self.rank = rank
        self.size = size
        self._meeting_place = meeting_place
        self._meetings = 0

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """A block in which this process has a process group of all ranks: a new one each time.

        A DDP model must be gone at its end, which is checked: it keeps the group, whose threads it would end while
        it holds Python's lock, which they may wait for.
        """
        self._meetings += 1
        store = dist.FileStore(f"{self._meeting_place}/{self._meetings}", self.size)
        dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.size)
        yield
        gc.collect()
        assert not any(type(each) is DistributedDataParallel for each in gc.get_objects()), "a DDP model is left"
        # A rank that left while another still reads from it would break that one's connection.
        store.set(f"done {self.rank}", "")
        store.wait([f"done {rank}" for rank in range(self.size)], timedelta(minutes=10))
        dist.destroy_process_group()


class Ranks:
    """The worker processes; they start when a scenario first needs them."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context(START)
        self._context.set_forkserver_preload(PRELOADED)
        self._workers: dict[int, tuple[multiprocessing.process.BaseProcess, Connection]] = {}

    def run(self, size: int, scenario: Callable[..., Any], *arguments: Any, seconds: float = 60) -> list[Any]:
        """What `scenario(world, *arguments)` returns on each of `size` ranks, in their order.

        Raises: DeadlockError for ranks that have not answered after `seconds`, RankError for exceptions.
        """
        with tempfile.TemporaryDirectory() as folder:
            for rank in range(size):
                connection = self._worker(rank)
                connection.send_bytes(pickle.dumps((World(rank, size, folder), scenario, arguments)))
            answers, failures = self._collect(size, seconds)
            missing = set(range(size)) - answers.keys()
            # After a failure all of them: connections of a group that broke have been seen to break the next one.
            for rank in range(size) if failures else missing:
                self._end(rank)
        if failures:
            raise RankError("\n".join(f"rank {rank} of {size}: {failures[rank]}" for rank in sorted(failures)))
        if missing:
            waiting = ", ".join(map(str, sorted(missing)))
            raise DeadlockError(f"deadlock: after {seconds} s no answer from rank {waiting} of {size}")
        return [answers[rank] for rank in range(size)]

    def stop(self) -> None:
        """End the workers, whatever they are doing."""
        for rank in list(self._workers):
            self._end(rank)

    def _worker(self, rank: int) -> Connection:
        if rank not in self._workers:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._workers[rank] = process, ours
        return self._workers[rank][1]

    def _end(self, rank: int) -> None:
        process, connection = self._workers.pop(rank)
        process.kill()
        process.join()
        connection.close()

    def _collect(self, size: int, seconds: float) -> tuple[dict[int, Any], dict[int, str]]:
        """The answers and the failures of the ranks that answered in time."""
        waiting = {self._worker(rank): rank for rank in range(size)}
        answers: dict[int, Any] = {}
        failures: dict[int, str] = {}
        deadline = time.monotonic() + seconds
        while waiting and (ready := wait(list(waiting), max(0.0, deadline - time.monotonic()))):
            for connection in ready:
                assert isinstance(connection, Connection)
                rank = waiting.pop(connection)
                try:
                    answers[rank], failure = pickle.loads(connection.recv_bytes())
                except (EOFError, OSError):
                    failure = "the process ended without an answer"
                if failure:
                    failures[rank] = failure
                    deadline = min(deadline, time.monotonic() + GRACE)
        return answers, failures


def _serve(connection: Connection) -> None:
    """A worker's life: run what is sent, answer with (what came out, the traceback)."""
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host's own name need not resolve
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # poisons `torch.empty`, as in the process of the tests
    with contextlib.suppress(EOFError):
        while True:
            connection.send_bytes(pickle.dumps(_answer(connection.recv_bytes())))


def _answer(request: bytes) -> tuple[Any, str]:
    try:
        world, scenario, arguments = pickle.loads(request)
        torch.manual_seed(0)
        gc.freeze()  # the modules themselves; searching them for garbage takes half a second
        return scenario(world, *arguments), ""
    except Exception:
        return None, traceback.format_exc()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
