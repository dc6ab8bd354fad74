"""The help that a newcomer reads."""

import pytest
import typer.main

from quantizers.cli.app import app
from tests.cli.conftest import Run

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for parameter in COMMANDS[name].params:
        shown = max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else parameter.metavar
        assert shown in text, f"{name} --help does not name {shown}"
        assert parameter.help or shown == "--help", f"{name} --help does not explain {shown}"
    assert f"Example: python -m quantizers {name} " in text
    assert "╭" not in text


def test_the_first_help_names_the_commands(run: Run) -> None:
    for words in ((), ("--help",)):
        text = run(*words).output
        assert "python -m quantizers fit embeddings.npy" in text
        for name in ("fit", "encode", "decode", "extend"):
            assert f"\n  {name} " in text
