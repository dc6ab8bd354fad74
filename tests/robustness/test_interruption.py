"""Training that is killed, at any moment, goes on from its last checkpoint bit for bit as if it had not been."""

import io
import multiprocessing
import os
import pickle
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import quantizers
from tests.cases import DIM, assert_same_state
from tests.robustness.training import Training

STEPS = 12
PIECES = 10  # that a checkpoint is written in, with a pause after each: saving takes most of the time
PAUSE = 0.003  # seconds
# Of torch.load, by how much of the file is there: none, too little to be a zip file, a part of one.
REFUSALS = (EOFError, pickle.UnpicklingError, RuntimeError, OSError)
# Imports once and forks from there: a process that trains is there at once. Adam's step imports torch._dynamo.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["torch._dynamo", __name__])


def new_training(seed: int = 0) -> Training:
    torch.manual_seed(seed)
    return Training(quantizers.create("ema_vq", dim=DIM, codebook_size=64))


def save(training: Training, path: Path, after_piece: Callable[[int], None]) -> None:
    """The recipe: write beside the last checkpoint, have the disk take it, and only then put it in its place."""
    memory = io.BytesIO()
    torch.save(training.state_dict(), memory)
    content, temporary = memory.getvalue(), path.with_suffix(".partial")
    size = -(-len(content) // PIECES)
    with temporary.open("wb") as file:
        for piece in range(PIECES):
            file.write(content[piece * size : (piece + 1) * size])
            file.flush()
            after_piece(piece)
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(training: Training, path: Path) -> None:
    training.load_state_dict(torch.load(path, weights_only=True))


def train(path: Path, connection: Connection) -> None:
    """What the process does that is killed: go on from the last checkpoint, and save one after each step."""
    torch.set_num_threads(1)
    training = new_training(seed=os.getpid())  # whatever this process begins with, the checkpoint decides
    if path.exists():
        load(training, path)
    else:
        training = new_training()

    def tell(piece: int) -> None:
        connection.send((training.count, piece))
        time.sleep(PAUSE)

    while training.count < STEPS:
        training.step()
        save(training, path, tell)


def kill(path: Path, when: Callable[[int, int], bool], delay: float = 0.0) -> bool:
    """Start training and kill it `delay` seconds after it has written a (step, piece) that `when` names.

    Returns: whether it was killed, and had not come to its end.
    """
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=train, args=(path, sender))
    process.start()
    sender.close()
    try:
        while not when(*receiver.recv()):
            pass
        time.sleep(delay)
    except EOFError:  # it came to its end
        process.join()
        assert process.exitcode == 0
        return False
    process.kill()
    process.join()
    return process.exitcode == -9


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    uninterrupted = new_training()
    for _ in range(STEPS):
        uninterrupted.step()

    path, draw = tmp_path / "checkpoint.pt", random.Random(0)
    # In the second step's save; then at random moments, of which most lie in a save too.
    assert kill(path, lambda step, piece: (step, piece) == (2, PIECES // 2))
    partial = path.with_suffix(".partial").stat().st_size
    assert 0 < partial < path.stat().st_size
    with pytest.raises(REFUSALS):
        torch.load(path.with_suffix(".partial"), weights_only=True)
    reached = [count_in(path)]
    assert reached == [1]
    for _ in range(4):
        kill(path, lambda step, piece: step > reached[-1] + 1, delay=draw.uniform(0, 2 * PIECES * PAUSE))
        reached.append(count_in(path))
    assert reached == sorted(reached)
    kill(path, lambda step, piece: False)  # to the end

    resumed = new_training(seed=1)
    load(resumed, path)
    assert resumed.count == STEPS
    expected, actual = uninterrupted.step(), resumed.step()
    assert all(torch.equal(a, b) for a, b in zip(expected, actual, strict=True))
    assert_same_state(uninterrupted.everything(), resumed.everything())


def count_in(path: Path) -> int:
    """The step of a checkpoint, which loads whole."""
    training = new_training()
    load(training, path)
    return training.count


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_half_a_checkpoint_is_refused(share: float, tmp_path: Path) -> None:
    """Which is what a crash leaves of a file that is written in its place: an error, never part of a state."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    training = new_training()
    training.step()
    torch.save(training.state_dict(), whole)
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(REFUSALS):
        torch.load(cut, weights_only=True)

    save_file(training.model.state_dict(), whole)
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(SafetensorError):
        load_file(cut)


def test_an_interrupted_save_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """Not only where the process dies: an error while writing, such as a full disk, is one too."""
    path, training = tmp_path / "checkpoint.pt", new_training()
    training.step()
    save(training, path, lambda piece: None)
    before = path.read_bytes()

    def disk_is_full(piece: int) -> None:
        if piece == PIECES // 2:
            raise OSError("No space left on device")

    training.step()
    with pytest.raises(OSError, match="No space left"):
        save(training, path, disk_is_full)
    assert path.read_bytes() == before
    assert count_in(path) == 1
