"""The part of docs/presets.md that is made from the data. `write()` writes it."""

from fractions import Fraction
from pathlib import Path
from types import ModuleType

from quantizers.presets import Preset, audio, images, other, speech, video

PAGE = Path(__file__).parents[2] / "docs" / "presets.md"
START, END = "<!-- made from the data -->\n", "<!-- end -->\n"
SECTIONS: dict[str, ModuleType] = {
    "Images": images,
    "Video": video,
    "Audio": audio,
    "Speech": speech,
    "Actions and recommendation": other,
}
HEAD = "| preset | model | method and options | codebooks | vectors | bitrate |\n|---|---|---|---|---|---|"


def shown(value: object) -> str:
    """A value as in code; the scales of a pyramid as fractions."""
    if isinstance(value, tuple) and any(isinstance(element, float) for element in value):
        return f"({', '.join(str(Fraction(element).limit_denominator(64)) for element in value)})"
    return f'"{value}"' if isinstance(value, str) else str(value)


def row(preset: Preset) -> str:
    published = preset.published
    options = ", ".join(f"{name}={shown(value)}" for name, value in preset.options.items())
    count = published.vectors
    number = " × ".join(map(str, count)) if isinstance(count, tuple) else f"{count:.4g}"
    cells = (
        f"`{preset.name}`",
        preset.model,
        f"`{preset.method_name}({options})`",
        f"{published.num_codebooks} × {published.codebook_size:,}",
        f"{number} per {published.per}",
        f"{published.bitrate} kbit/s" if published.bitrate else "",
    )
    return f"| {' | '.join(cells)} |"


def section(title: str, module: ModuleType) -> str:
    table = "\n".join([HEAD, *map(row, module.PRESETS)])
    sources = [
        f"- `{preset.name}`: {preset.source}.{f' **Differences:** {preset.note}' if preset.note else ''}"
        for preset in module.PRESETS
    ]
    return f"## {title}\n\n{table}\n\nSources:\n\n{chr(10).join(sources)}\n"


def made() -> str:
    return "\n".join(section(title, module) for title, module in SECTIONS.items())


def split(text: str) -> tuple[str, str, str]:
    """What stands before, in and after the part that is made."""
    before, rest = text.split(START)
    inside, after = rest.split(END)
    return before, inside, after


def write() -> None:
    before, _, after = split(PAGE.read_text())
    PAGE.write_text(f"{before}{START}{made()}{END}{after}")
