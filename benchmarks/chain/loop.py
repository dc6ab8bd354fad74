"""Training that saves checkpoints and resumes from them with the same result as an uninterrupted training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.chain import checkpoints
from benchmarks.training import learning_rate_schedule, make_optimizer
from benchmarks.utilization import repeatable_convolutions

SAVE_EVERY = 100  # steps, the most that are lost when the process is killed

OnStep = Callable[[int, Tensor], None]


class Helper(Protocol):
    """A stateful object that steps after the optimizer: schedules, the replacement of codes."""

    def step(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Job:
    """A training.

    loss      returns the loss of the next batch, drawn by the generator; 0-d
    begin     runs before the first step
    helpers   returns helpers for the optimizer
    settings  "steps", "learning_rate", "seed", and everything else that determines the result
    """

    model: nn.Module
    loss: Callable[[torch.Generator], Tensor]
    begin: Callable[[], None]
    helpers: Callable[[torch.optim.Optimizer], list[Helper]]
    settings: dict[str, Any]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random numbers inside the block, and restore their state afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def train(job: Job, path: Path, on_step: OnStep, *, device: str = "cpu", fresh: bool = False) -> Tensor:
    """Train in place from the checkpoint at `path`, if it belongs to this job. Leaves the model in evaluation
    mode.

    A damaged checkpoint or one of another job is overwritten. `on_step(step, loss)` is called after each step,
    counted from 1, and once for the steps that the checkpoint already contains.

    Returns: the loss of each step, float32 [steps].
    """
    key = checkpoints.fingerprint(job.settings, device)
    stored = None if fresh else checkpoints.load(path)
    with seeded(job.settings["seed"]), repeatable_convolutions():
        run = _Run(job, device)
        if stored is not None and stored.get("fingerprint") == key:
            run.restore(path, stored)
            on_step(run.step, run.losses[max(run.step - 1, 0)])
        else:
            job.begin()
        while run.step < job.settings["steps"]:
            loss = run.advance()
            if run.step % SAVE_EVERY == 0 or run.step == job.settings["steps"]:
                checkpoints.save(path, {"fingerprint": key, **run.content()})
            on_step(run.step, loss)
    job.model.eval()
    return run.losses.cpu()


class _Run:
    """The state that changes while a job is trained."""

    def __init__(self, job: Job, device: str) -> None:
        self.job = job
        self.device = torch.device(device)
        self.step = 0
        self.losses = torch.zeros(job.settings["steps"], device=device)
        self.generator = torch.Generator().manual_seed(job.settings["seed"])
        self.optimizer = make_optimizer(job.model, job.settings["learning_rate"])
        schedule = learning_rate_schedule(self.optimizer, job.settings["steps"])
        self.helpers: list[Helper] = [schedule, *job.helpers(self.optimizer)]
        job.model.train()

    def advance(self) -> Tensor:
        """Run one step and return its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.job.loss(self.generator)
        loss.backward()
        self.optimizer.step()
        for helper in self.helpers:
            helper.step()
        self.losses[self.step] = loss.detach()
        self.step += 1
        return loss.detach()

    def content(self) -> dict[str, Any]:
        on_cuda = self.device.type == "cuda"
        return {
            "settings": self.job.settings,
            "step": self.step,
            "losses": self.losses,
            "model": self.job.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "helpers": [helper.state_dict() for helper in self.helpers],
            "generator": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "random_on_device": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }

    def restore(self, path: Path, content: dict[str, Any]) -> None:
        checkpoints.load_weights(path, self.job.model, content["model"])
        self.step = content["step"]
        self.losses.copy_(content["losses"])
        self.optimizer.load_state_dict(content["optimizer"])
        for helper, state in zip(self.helpers, content["helpers"], strict=True):
            helper.load_state_dict(state)
        self.generator.set_state(content["generator"])
        torch.set_rng_state(content["random"])
        if content["random_on_device"] is not None:
            torch.cuda.set_rng_state(content["random_on_device"], self.device)
