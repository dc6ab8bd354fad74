"""Tokenizers of video."""

from quantizers.presets.preset import Preset, Published

_VIDTOK_NOTE = (
    "The published training adds an entropy term (weight 0.1, three times as much at first) and a commitment term "
    "(weight 0.25), which FSQ does not have here."
)


def _vidtok(name: str, model: str, config: str, channels: int, codes: int, pixels: str) -> Preset:
    return Preset(
        name=name,
        model=model,
        method="fsq",
        options={"dim": channels, "levels": (8,) * channels},
        published=Published(codes, channels, (1, 1, 1), pixels),
        source=f"arXiv 2412.13061; microsoft/VidTok, configs/{config}.yaml, README.md and "
        "vidtok/modules/regularizers.py",
        note=_VIDTOK_NOTE,
    )


PRESETS = (
    Preset(
        name="cosmos_dv8x16x16",
        model="Cosmos-Tokenizer-DV8x16x16",
        method="fsq",
        options={"dim": 6, "levels": (8, 8, 8, 5, 5, 5)},
        published=Published(64000, 6, (1, 1, 1), "8 frames of 16 × 16 pixels"),
        source="arXiv 2501.03575; NVIDIA/Cosmos-Tokenizer, cosmos_tokenizer/networks/configs.py and README.md",
    ),
    Preset(
        name="emu3",
        model="Emu3, vision tokenizer",
        method="vq",
        options={"dim": 4, "codebook_size": 32768},
        published=Published(32768, 4, (1, 64, 64), "4 frames of 512 × 512 pixels", indices=4096),
        source="arXiv 2409.18869; transformers 5.23, defaults of Emu3VQVAEConfig; the tokens of a clip from the "
        "journal's article (reprinted at gokawiil.com/article/248391)",
        note="The weights of the losses are not published.",
    ),
    _vidtok(
        "vidtok_4x8x8_262144",
        "VidTok, FSQ-262,144",
        "vidtok_fsq_causal_488_262144",
        6,
        262144,
        "4 frames of 8 × 8 pixels",
    ),
    _vidtok(
        "vidtok_4x8x8_32768",
        "VidTok, FSQ-32,768",
        "vidtok_fsq_causal_488_32768",
        5,
        32768,
        "4 frames of 8 × 8 pixels",
    ),
    _vidtok(
        "vidtok_4x8x8_4096", "VidTok, FSQ-4096", "vidtok_fsq_causal_488_4096", 4, 4096, "4 frames of 8 × 8 pixels"
    ),
    _vidtok(
        "vidtok_4x16x16_262144",
        "VidTok, FSQ-262,144",
        "vidtok_fsq_causal_41616_262144",
        6,
        262144,
        "4 frames of 16 × 16 pixels",
    ),
)
