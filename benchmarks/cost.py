"""Time and memory of one training step."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.autograd.profiler import profile

from benchmarks.autoencoder import Autoencoder
from benchmarks.training import make_optimizer, training_step


@dataclass(frozen=True)
class Cost:
    """What one training step takes.

    step_ms            median time of forward, backward and update of the whole autoencoder on one batch that
                       is already on the device; cutting crops is not in it
    quantizer_ms       median time of the quantizer's own forward and backward on latents of the same shape,
                       the gradient coming from a mean of squares in the decoder's place; the optimiser's work
                       on the quantizer's parameters is not in it
    quantizer_share    quantizer_ms / step_ms
    peak_memory_bytes  the most tensor memory alive at once during one step beyond what was alive before it:
                       activations, gradients and all temporaries of torch's allocator are in it; weights,
                       optimiser state, images, and what a library such as oneDNN or cuDNN allocates
                       for itself are not. None on a device that is neither cpu nor cuda
    """

    step_ms: float
    quantizer_ms: float
    quantizer_share: float
    peak_memory_bytes: int | None


def measure_cost(model: Autoencoder, images: torch.Tensor, learning_rate: float, repetitions: int = 20) -> Cost:
    """Measure on `images` [B, 3, 32, 32], on the model's device. The model is trained on by it: measure last."""
    optimizer = make_optimizer(model, learning_rate)
    latents = model.encoder(images).detach().requires_grad_()

    def step() -> None:
        training_step(model, optimizer, images)

    def quantizer_alone() -> None:
        model.zero_grad(set_to_none=True)
        latents.grad = None
        out = model.quantizer(latents)
        (out.quantized.square().mean() + out.loss).backward()

    model.train()
    # In turns, so that a slow moment of the machine falls on both.
    step_times, quantizer_times = [], []
    for _ in range(3 + repetitions):
        step_times.append(_milliseconds(step, images.device))
        quantizer_times.append(_milliseconds(quantizer_alone, images.device))
    step_ms, quantizer_ms = statistics.median(step_times[3:]), statistics.median(quantizer_times[3:])
    model.zero_grad(set_to_none=True)
    return Cost(step_ms, quantizer_ms, quantizer_ms / step_ms, peak_memory(step, images.device))


def _milliseconds(work: Callable[[], None], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    work()
    _synchronize(device)
    return (time.perf_counter() - start) * 1000


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory(work: Callable[[], None], device: torch.device) -> int | None:
    """Bytes of tensor memory alive at once during `work`, beyond those alive before it."""
    if device.type == "cpu":
        return _peak_memory_cpu(work)
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_memory_cpu(work: Callable[[], None]) -> int:
    """From the profiler: the running sum of what torch's CPU allocator handed out and took back.

    The allocator keeps no statistics of its own. What was allocated before `work` and is freed during it is
    not taken off: the profiler does not know its size.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler writes over the progress bar
    with profile(profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
