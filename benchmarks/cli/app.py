"""All commands of `python -m benchmarks`."""

import importlib.util

import typer

from benchmarks.cli import (
    chain,
    code,
    first_call,
    imports,
    kernels,
    offline,
    prior,
    reconstruct,
    robustness,
    sample,
    scales,
    search,
    study,
    sweep,
    utilization,
    versions,
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def benchmarks() -> None:
    """Benchmarks of vector quantizers. Each is a command with its own --help."""


app.command("utilization")(utilization.command)
app.command("sweep")(sweep.command)
app.command("study")(study.command)
app.command("kernels")(kernels.command)
app.command("first-call")(first_call.command)
app.command("imports")(imports.command)
app.command("offline")(offline.command)
app.command("robustness")(robustness.command)
app.command("chain")(chain.command)
app.command("scales")(scales.command)
app.command("reconstruct")(reconstruct.command)
app.command("prior")(prior.command)
app.command("sample")(sample.command)
app.command("search")(search.command)
app.command("code")(code.command)
app.command("versions")(versions.command)
if importlib.util.find_spec("triton"):  # which exists on Linux only
    from benchmarks.cli import gpu, host

    app.command("host")(host.command)
    app.command("gpu")(gpu.command)
    app.command("gpu-report")(gpu.read_command)
