"""What happens beside the distribution "quantizers" of another project, which installs a package of this name."""

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.docs.packages import Environment, fresh_environment

THEIRS = {
    "quantizers/__init__.py": "from .stateful_quantizers import FixedQ\n\n__all__ = ['FixedQ']\n",
    "quantizers/_version.py": "version = '1.2.2'\n",
    "quantizers/stateful_quantizers.py": "class FixedQ: ...\n",
    "quantizers/binary/__init__.py": "",
    "quantizers/fixed_point/__init__.py": "",
    "quantizers/minifloat/__init__.py": "",
}
"""The layout of the wheel quantizers 1.2.2, fixed-point quantizers for Keras."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small wheel with the name and the layout of the other project's."""
    metadata = "quantizers-1.2.2.dist-info"
    files = {
        **THEIRS,
        f"{metadata}/METADATA": "Metadata-Version: 2.1\nName: quantizers\nVersion: 1.2.2\n",
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {name: hashlib.sha256(text.encode()).digest() for name, text in files.items()}
    record = [
        f"{name},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{len(files[name])}"
        for name, digest in digests.items()
    ]
    path = tmp_path_factory.mktemp("theirs") / "quantizers-1.2.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{metadata}/RECORD", "\n".join([*record, f"{metadata}/RECORD,,"]) + "\n")
    return path


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return fresh_environment(tmp_path / "environment")


@pytest.fixture
def ours(built: Path) -> Path:
    return next(built.glob("*.whl"))


def imported(environment: Environment) -> tuple[list[str], list[str]]:
    """Return which of both projects' names `import quantizers` finds, and its warnings."""
    program = (
        "import torch, warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import quantizers\n"
        "print(*[name for name in ('create', 'FixedQ') if hasattr(quantizers, name)])\n"
        "print(*[f'{each.filename}: {each.message}' for each in caught], sep='\\n')\n"
    )
    names, *warned = environment.run(program, environment.site.parent).splitlines()
    return names.split(), [line for line in warned if line]


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
def test_ours_after_theirs_warns_until_both_are_uninstalled(
    environment: Environment, ours: Path, theirs: Path
) -> None:
    environment.install(theirs)
    environment.install(ours)
    names, (warned,) = imported(environment)
    assert names == ["create"]
    assert warned.startswith("<string>: ")  # the user's import
    for part in ("quantizers-torch", "fixed-point quantizers for Keras", str(environment.site), "separate env"):
        assert part in warned
    # Uninstalling one breaks the other, as docs/installing.md says: `__init__.py` belongs to both.
    environment.pip("uninstall", "--quiet", "--yes", "quantizers")
    assert imported(environment) == ([], [])
    environment.pip("uninstall", "--quiet", "--yes", "quantizers-torch")
    environment.install(ours)
    assert imported(environment) == (["create"], [])


@pytest.mark.slow
def test_theirs_after_ours_is_what_an_import_gives(environment: Environment, ours: Path, theirs: Path) -> None:
    """As docs/installing.md says: their `__init__.py` has replaced ours, which therefore cannot warn."""
    environment.install(ours)
    environment.install(theirs)
    assert imported(environment) == (["FixedQ"], [])
