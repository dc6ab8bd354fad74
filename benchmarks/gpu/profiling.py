"""The kernels that one call launches, and how long each takes on the device, by torch's profiler."""

import torch

from benchmarks.gpu.stages import Place
from benchmarks.kernels.rivals import Work

LONGEST = 120  # characters of a name, of which C++ templates have thousands

Launched = dict[str, dict[str, float]]  # by name: "launches" and "us", the microseconds of all of them


def profiled(work: Work, place: Place) -> Launched:
    """Return what one run launches, the slowest first: kernels, and what fills or copies memory ("Mem…").

    Nothing in the interpreter, which has no device to ask. Raises: RuntimeError if the profiler does not work.
    """
    if place.interpreted:
        work()
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        place.wait()
    launched: Launched = {}
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation:
            numbers = launched.setdefault(event.name.removeprefix("void ")[:LONGEST], {"launches": 0, "us": 0.0})
            numbers["launches"] += 1
            numbers["us"] += event.device_time
    return _slowest_first(launched)


def of_kernels(launched: Launched) -> Launched:
    """Return the kernels alone."""
    return {name: numbers for name, numbers in launched.items() if not name.startswith("Mem")}


def total_us(launched: Launched) -> float:
    return sum(numbers["us"] for numbers in launched.values())


def by_short_name(launched: Launched) -> Launched:
    """Return the sums over kernels whose names differ only in templates, namespaces and arguments."""
    sums: Launched = {}
    for name, numbers in launched.items():
        each = sums.setdefault(short_name(name), {"launches": 0, "us": 0.0})
        for key in each:
            each[key] += numbers[key]
    return _slowest_first(sums)


def short_name(name: str) -> str:
    """Return a C++ kernel's name without templates, namespaces and arguments; others as they are."""
    bare = name.replace("(anonymous namespace)::", "").partition("<")[0].partition("(")[0].strip()
    return bare.rpartition("::")[2] or name


def _slowest_first(launched: Launched) -> Launched:
    return dict(sorted(launched.items(), key=lambda item: -item[1]["us"]))
