"""What published tokenizers use, by name: `quantizers.create("preset:mimi", channel_dim=1)`.

    >>> import quantizers
    >>> preset = quantizers.presets.get("dac_44khz")
    >>> preset.method, preset.options["codebook_size"], preset.published.bitrate
    ('residual', 1024, '8')
    >>> quantizers.create("preset:dac_44khz", num_quantizers=2).num_codebooks
    2

A preset is a method and its options, with the model's own channels as `dim`. Options that `create` is given
replace the preset's. A preset has no trained codes: for those of an existing model, see `quantizers.plug_in` with
`keep_codebook=True`. `docs/presets.md` lists all presets with their sources.
"""

import difflib
from collections.abc import Mapping

from quantizers.core.arguments.hints import did_you_mean
from quantizers.core.registry import Builder
from quantizers.presets import audio, images, other, speech, video
from quantizers.presets.preset import Preset, Published

__all__ = ["Preset", "Published", "available", "get"]

_PRESETS: dict[str, Preset] = {
    preset.name: preset for module in (images, video, audio, speech, other) for preset in module.PRESETS
}


def available() -> tuple[str, ...]:
    """The names of all presets, sorted."""
    return tuple(sorted(_PRESETS))


def get(name: str) -> Preset:
    """The preset of a name, without "preset:". Raises: ValueError for an unknown name, with the names near it."""
    if name not in _PRESETS:
        near = difflib.get_close_matches(str(name).lower(), _PRESETS, n=3, cutoff=0.4)
        raise ValueError(f"no preset is named {name!r}; {did_you_mean(near)}there are {', '.join(available())}")
    return _PRESETS[name]


def resolve(name: str) -> tuple[str | Builder, Mapping[str, object]]:
    """The method and options of a preset, for `create("preset:...")`. Raises: the error of `get`."""
    preset = get(name)
    return preset.method, preset.options
