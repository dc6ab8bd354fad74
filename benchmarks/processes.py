"""Ends a process that was started in a session of its own, with all that it started."""

import os
import signal
import subprocess
from contextlib import suppress

GRACE = 10.0  # seconds between the signal that asks a process to end and the one that ends it


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the process, which lets pytest write its results, then end it and what it started."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
