"""Wheels with and without compiled kernels. Everything else about the package is in pyproject.toml.

    python -m build    # the sdist, and a wheel for any machine
    python -m build --wheel --no-isolation -C--build-option=--plat-name=manylinux_2_17_x86_64

The latter holds a library for each set of vector instructions, compiled with the package ziglang, which makes
libraries for an old glibc and for another machine.
"""

import re
import shutil
import sys
import types
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

ROOT = Path(__file__).parent
PLATFORM = re.compile(r"manylinux_(\d+)_(\d+)_(x86_64|aarch64)")
VARIANTS = {"x86_64": ("AVX512", "AVX2", "portable"), "aarch64": ("portable",)}
# Clang's scheduler would move loads so far ahead in the innermost loops that a register has to be spilled.
FLAGS = ("-fPIC", "-fvisibility-inlines-hidden", "-mllvm", "-enable-misched=0")
EXPORTED = "{ global: quantizers_*; local: *; };"


class Wheel(bdist_wheel):
    """With the option --plat-name, a wheel for one platform, which holds compiled kernels."""

    def finalize_options(self) -> None:
        if self.plat_name:
            # What was built before for another platform must not get into this wheel.
            self.distribution.get_command_obj("build").build_base = f"build/{self.plat_name}"
            self.distribution.has_ext_modules = lambda: True
        super().finalize_options()

    def run(self) -> None:
        if self.plat_name_supplied:
            self.run_command("build")
            build_kernels(self.plat_name, Path(self.get_finalized_command("build").build_lib))
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", self.plat_name if self.plat_name_supplied else "any")


def build_kernels(platform: str, package: Path) -> None:
    """Compile the kernels into a folder with the package's modules."""
    if not (matched := PLATFORM.fullmatch(platform)):
        raise SystemExit(
            f"--plat-name is {platform!r}, expected manylinux_2_17_x86_64 or _aarch64, or another glibc"
        )
    major, minor, machine = matched.groups()
    build = torchless_import()
    target = package / build.PREBUILT.relative_to(ROOT)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    exported = target / "exported"
    exported.write_text(EXPORTED)
    compiler = [sys.executable, "-m", "ziglang", "c++", "-target", f"{machine}-linux-gnu.{major}.{minor}"]
    link_flags = ("-s", "-Wl,--gc-sections", f"-Wl,--version-script={exported}")
    for instructions in VARIANTS[machine]:
        library = target / f"{build.library_name(machine, instructions)}.so"
        build.compile_library(compiler, instructions, library, FLAGS, link_flags)
    exported.unlink()


def torchless_import() -> types.ModuleType:
    """Return the module with the commands; importing the package that it lies in would import PyTorch."""
    package = types.ModuleType("quantizers")
    package.__path__ = [str(ROOT / "quantizers")]
    sys.modules["quantizers"] = package
    sys.path.insert(0, str(ROOT))
    from quantizers.kernels.common.compiled import build

    return build


if (ROOT / "quantizers" / "kernels").is_file():
    raise SystemExit("quantizers/kernels is a text file; clone with `git clone -c core.symlinks=true`")
setup(cmdclass={"bdist_wheel": Wheel})
