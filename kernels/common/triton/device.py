"""What launchers need to know of the device that their kernels run on."""

from typing import NamedTuple

import torch

# Multiprocessors and shared memory without a device: few, but enough to split a search.
INTERPRETED = (2, 163 * 1024)


class Device(NamedTuple):
    """A device, as far as tile sizes depend on it."""

    multiprocessors: int
    shared_memory: int  # bytes a block may use


def device_properties(device: torch.device) -> Device:
    """Return the properties of a device; fixed numbers for the CPU, where Triton's interpreter runs."""
    if device.type != "cuda":
        return Device(*INTERPRETED)
    properties = torch.cuda.get_device_properties(device)
    shared_memory = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
    return Device(properties.multi_processor_count, shared_memory)
