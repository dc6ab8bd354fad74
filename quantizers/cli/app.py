"""All commands of `python -m quantizers`."""

import typer

from quantizers.cli import decode, diagnose, encode, extend, fit

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def quantizers() -> None:
    """Codebooks fitted offline: k-means, residual and product codes, and semantic IDs, from files of embeddings.

    Start with:  python -m quantizers fit embeddings.npy --out ids

    Each command has its own --help.
    """


app.command("fit")(fit.command)
app.command("encode")(encode.command)
app.command("decode")(decode.command)
app.command("extend")(extend.command)
app.command("diagnose")(diagnose.command)
