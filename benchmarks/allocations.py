"""Memory that torch's CPU allocator hands out during a computation."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def largest_allocation(work: Callable[[], object]) -> int:
    """Return the size in bytes of the largest single allocation by torch's CPU allocator during `work`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    return max(event["args"]["Bytes"] for event in events if event.get("name") == "[memory]")
