"""The presets that use a method, at the top or inside a composition."""

from quantizers import presets

PAGE = "../presets.md"
MADE_OF = {"split_residual": ("parallel", "residual")}
"""The methods that a preset's own function composes, from the outside in."""


def table(name: str) -> str:
    """The presets of a method as a Markdown table with its role in each, or a sentence if there are none."""
    rows = [
        f"| [`{preset.name}`]({PAGE}) | {preset.model} | {role} |"
        for preset in map(presets.get, presets.available())
        if (role := role_of(name, chain(preset)))
    ]
    return "\n".join(["| preset | model | role |", "|---|---|---|", *rows]) if rows else "No preset uses it."


def chain(preset: presets.Preset) -> tuple[str, ...]:
    """The methods of a preset from the outside in, such as ("residual", "vq")."""
    inner = preset.options.get("quantizer")
    outer = MADE_OF.get(preset.method_name, (preset.method_name,))
    return (*outer, inner) if isinstance(inner, str) else outer


def role_of(name: str, methods: tuple[str, ...]) -> str:
    """What a method does among the methods of a preset, in words; empty if it is none of them."""
    if name not in methods:
        return ""
    place = methods.index(name)
    outside, inside = methods[:place], methods[place + 1 :]
    words = [f"inside `{outside[-1]}`"] if outside else []
    words += [f"around `{inside[0]}`"] if inside else []
    return ", ".join(words) or "by itself"
