"""A small model in training, with everything that a checkpoint of it must hold."""

from typing import Any

import torch
from torch import Tensor, nn

from quantizers import Quantizer, QuantizerOutput
from quantizers.training.schedules import ExponentialTemperature
from tests.cases import DIM, batch, state_of


class Training:
    """An encoder and a quantizer under Adam, and a schedule where there is a temperature.

    The batch of a step follows from its number, so that all else that a step depends on is in `state_dict`.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.model = nn.Sequential(nn.Linear(DIM, DIM), quantizer)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        tempered = isinstance(getattr(quantizer, "temperature", None), Tensor)
        self.schedule = ExponentialTemperature(quantizer, 1.0, 0.1, steps=5) if tempered else None
        self.count = 0

    def step(self) -> QuantizerOutput:
        x = batch(12, seed=self.count)
        self.optimizer.zero_grad()
        out: QuantizerOutput = self.model(x)
        ((out.quantized - x).square().mean() + out.loss).backward()
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        self.count += 1
        return out

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else {},
            "generator": torch.get_rng_state(),
            "count": self.count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"], strict=True)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["generator"])
        self.count = state["count"]

    def everything(self) -> dict[str, Tensor]:
        """A copy of all tensors: parameters, buffers, those that are not saved too, and the optimizer's."""
        moments = self.optimizer.state_dict()["state"]
        return state_of(self.model) | {
            f"{name} of parameter {number}": value.clone()
            for number, values in moments.items()
            for name, value in values.items()
        }
