"""The command line: each benchmark is a sub-command, in a file of its own.

What cannot be used is a sentence and exit code 2; Ctrl-C reports what is finished and exits with 130.
"""

import typer

from benchmarks.cli import chain, code, kernels, prior, reconstruct, robustness, sample, study, sweep, utilization

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def benchmarks() -> None:
    """Measure the quantizers. Each benchmark is a command and has its own --help."""


app.command("utilization")(utilization.command)
app.command("sweep")(sweep.command)
app.command("study")(study.command)
app.command("kernels")(kernels.command)
app.command("robustness")(robustness.command)
app.command("chain")(chain.command)
app.command("reconstruct")(reconstruct.command)
app.command("prior")(prior.command)
app.command("sample")(sample.command)
app.command("code")(code.command)
