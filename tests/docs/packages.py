"""Commands that build and install packages, and fresh environments to install them in."""

import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Return the output of a command, which must succeed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """An environment with packages of its own."""

    python: Path
    site: Path

    def pip(self, *arguments: str | Path) -> None:
        run(sys.executable, "-m", "pip", "--python", self.python, *arguments)

    def install(self, *requirements: str | Path) -> None:
        self.pip("install", "--quiet", "--no-deps", *requirements)

    def run(self, program: str, folder: Path) -> str:
        """Return the output of a program in `folder`, for which this process's environment lends what is missing.

        Only for a moment, so that pip neither finds nor removes what is lent.
        """
        lent = self.site / "lent.pth"
        lent.write_text(sysconfig.get_path("purelib") + "\n")
        try:
            return run(self.python, "-c", program, cwd=folder)
        finally:
            lent.unlink()


def fresh_environment(folder: Path) -> Environment:
    venv.create(folder)
    python = folder / "bin" / "python"
    return Environment(
        python, Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    )
