"""What torch's CPU allocator gives out while something runs."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def largest_allocation(work: Callable[[], object]) -> int:
    """Bytes of the largest piece of memory that torch's CPU allocator gave out, wherever it was asked."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    return max(event["args"]["Bytes"] for event in events if event.get("name") == "[memory]")
