"""What a user installs: one import name, light, beside Hugging Face's `kernels`."""

import importlib.metadata
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import quantizers
from quantizers.minimum_torch import MINIMUM
from tests.docs.packages import ROOT, fresh_environment, run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest installs there

CORE = {"quantizers", "torch", "numpy"}
OPTIONAL = {
    "triton", "matplotlib", "PIL", "skimage", "sklearn", "rich", "typer", "hypothesis", "pytest", "safetensors",
    "torchmetrics", "huggingface_hub", "constriction", "pyarrow",
}  # fmt: skip


def test_import_brings_neither_triton_nor_an_optional_package(tmp_path: Path) -> None:
    """Nothing that `import torch` has not brought itself; run from elsewhere, so that it is the installed one."""
    program = (
        "import json, sys; import torch; before = set(sys.modules); import quantizers;"
        "print(json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - before})))"
    )
    new = set(json.loads(run(sys.executable, "-c", program, cwd=tmp_path)))
    assert "quantizers" in new
    assert not new & OPTIONAL
    assert new - set(sys.stdlib_module_names) <= CORE | {name for name in new if name.startswith("_")}


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"quantizers", f"quantizers_torch-{quantizers.__version__}.dist-info"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "quantizers").glob("[!k]*/**/*.py")}
    modules |= {f"quantizers/{path.name}" for path in ROOT.glob("quantizers/*.py")}
    kernels = {path for path in (ROOT / "kernels").rglob("*") if path.suffix in (".py", ".cpp", ".h", ".md")}
    arithmetic = {f"quantizers/{path.relative_to(ROOT)}" for path in kernels}
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == modules | arithmetic | {"quantizers/py.typed"}
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        parts = [Path(name).parts[1:] for name in sdist.getnames()]
    assert ("quantizers", "kernels", "nearest", "search.h") in parts
    assert ("setup.py",) in parts  # without which a wheel could not hold compiled kernels
    assert not any(part[:1] == ("tests",) for part in parts)  # some of them could not run


@pytest.mark.slow
def test_wheel_lives_beside_hugging_faces_kernels(built: Path, tmp_path: Path) -> None:
    """Both in the site-packages of a fresh environment; torch and the rest are lent by this one's."""
    environment = fresh_environment(tmp_path / "environment")
    theirs = importlib.metadata.distribution("kernels")
    environment.install(next(built.glob("*.whl")), f"kernels=={theirs.version}")
    program = (
        "import kernels, quantizers, torch; from quantizers.kernels.common import dispatch;"
        "print(kernels.__file__); print(kernels.get_kernel.__module__); print(dispatch.__file__);"
        "print(tuple(quantizers.create('vq', dim=4, codebook_size=8)(torch.zeros(2, 4)).indices.shape))"
    )
    # From the repository's root too, where the folder kernels/ lies: it must not shadow the installed package.
    for folder in (tmp_path, ROOT):
        program_with_path = f"import sys; sys.path[:] = [p for p in sys.path if p]; {program}"
        printed = environment.run(program_with_path, folder)
        kernels_file, module, ours, shape = printed.split("\n")[:4]
        assert Path(kernels_file).is_relative_to(environment.site)
        assert module.startswith("kernels")
        assert Path(ours).is_relative_to(environment.site / "quantizers")
        assert shape == "(2,)"


def test_folder_kernels_is_no_package() -> None:
    assert (ROOT / "quantizers" / "kernels").is_symlink()
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_version_stands_in_one_place() -> None:
    assert importlib.metadata.version("quantizers-torch") == quantizers.__version__
    assert re.search(rf"^## {re.escape(quantizers.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert f"version: {quantizers.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_constraints_pin_what_the_extras_ask_for() -> None:
    """Every package of every extra, and the core's, is pinned, so that a fresh machine tests what was tested."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in asked}  # type: ignore[index]
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert names == pinned


def test_the_oldest_torch_stands_in_two_places_that_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"torch>={MINIMUM[0]}.{MINIMUM[1]}" in project["dependencies"]
