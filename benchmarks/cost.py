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
    """Time and memory of one training step.

    step_ms            median time of forward, backward and update of the whole autoencoder on one batch that
                       is already on the device; excludes cutting the crops
    quantizer_ms       median time of the quantizer's own forward and backward on latents of the same shape, with
                       the gradient of a mean of squares instead of the decoder's; excludes the optimizer's work
                       on the quantizer's parameters
    quantizer_share    quantizer_ms / step_ms
    peak_memory_bytes  peak tensor memory during one step beyond what was allocated before it: activations,
                       gradients and all temporaries of torch's allocator. Excludes weights, optimizer state,
                       images, and memory that a library such as oneDNN or cuDNN allocates on its own. None on a
                       device other than cpu and cuda
    """

    step_ms: float
    quantizer_ms: float
    quantizer_share: float
    peak_memory_bytes: int | None


def measure_cost(model: Autoencoder, images: torch.Tensor, learning_rate: float, repetitions: int = 20) -> Cost:
    """Measure on `images` [B, 3, 32, 32], on the model's device. This trains the model further, so measure
    last."""
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
    # Interleaved, so that a slow moment of the machine affects both.
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
    """Return the peak tensor memory in bytes during `work`, beyond the memory allocated before it."""
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
    """Return the peak of the running sum of allocations and releases that the profiler records.

    The CPU allocator keeps no statistics of its own. Memory that was allocated before `work` and freed during it
    is not subtracted, since the profiler does not know its size.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # otherwise the profiler writes over the progress bar
    with profile(profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
