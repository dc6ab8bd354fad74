"""Codecs of audio of any kind."""

from quantizers.presets.preset import Preset, Published

_START_AND_REPLACEMENT = (
    "Codes start from k-means, and codes used less than twice in a moving average are replaced: see `warm_start` "
    "and `DeadCodeReplacement`."
)


def _dac(name: str, model: str, config: str, codebooks: int, rate: float, bitrate: str = "") -> Preset:
    return Preset(
        name=name,
        model=model,
        method="residual",
        options={
            "dim": 1024,
            "quantizer": "vq",
            "num_quantizers": codebooks,
            "codebook_size": 1024,
            "code_dim": 8,
            "distance": "angle",
            "commitment_weight": 0.25,
            "codebook_weight": 1.0,
            "dropout": 0.5,
            "dropout_by": "sample",
        },
        published=Published(1024, 8, rate, "second", num_codebooks=codebooks, bitrate=bitrate),
        source=f"arXiv 2306.06546; descriptinc/descript-audio-codec, conf/final/{config}.yml, README.md and "
        "dac/nn/quantize.py; the 1024 channels from DacConfig of transformers 5.23",
    )


def _snac(
    name: str, model: str, dim: int, strides: tuple[int, ...], levels: int, rate: float, bitrate: str
) -> Preset:
    return Preset(
        name=name,
        model=model,
        method="multiscale",
        options={
            "dim": dim,
            "quantizer": "vq",
            "codebook_size": 4096,
            "code_dim": 8,
            "distance": "angle",
            "scales": tuple(1 / stride for stride in strides),
            "axes": 1,
            "shared": False,
            "interpolation": "nearest",
        },
        published=Published(4096, 8, rate, "second", num_codebooks=levels, bitrate=bitrate),
        source="arXiv 2410.14411; hubertsiuzdak/snac, README.md, snac/snac.py and snac/vq.py; the model card for "
        "the rates of the tokens; strides and channels of this model from public ports of its config.json",
        note="Each scale of the published model projects to 8 channels and back; here x is projected once, before "
        "the first scale. The weights of the losses are not published.",
    )


PRESETS = (
    Preset(
        name="encodec_24khz",
        model="EnCodec, 24 kHz, at its highest bitrate",
        method="residual",
        options={
            "dim": 128,
            "quantizer": "ema_vq",
            "num_quantizers": 32,
            "codebook_size": 1024,
            "decay": 0.99,
            "epsilon": 1e-5,
            "commitment_weight": 1.0,
        },
        published=Published(1024, 128, 75.0, "second", num_codebooks=32, bitrate="24"),
        source="arXiv 2210.13438; facebookresearch/encodec, README.md, encodec/model.py and "
        "encodec/quantization/core_vq.py; the 128 channels from EncodecConfig of transformers 5.23",
        note="With 2, 4, 8 or 16 codebooks it has 1.5, 3, 6 or 12 kbit/s: see `num_codebooks` of forward. "
        + _START_AND_REPLACEMENT,
    ),
    Preset(
        name="encodec_32khz",
        model="EnCodec, 32 kHz, of MusicGen",
        method="residual",
        options={
            "dim": 128,
            "quantizer": "ema_vq",
            "num_quantizers": 4,
            "codebook_size": 2048,
            "decay": 0.99,
        },
        published=Published(2048, 128, 50.0, "second", num_codebooks=4),
        source="facebookresearch/audiocraft, docs/MUSICGEN.md, config/model/encodec/default.yaml and "
        "encodec_large_nq4_s640.yaml",
        note=_START_AND_REPLACEMENT,
    ),
    _dac("dac_44khz", "Descript Audio Codec, 44.1 kHz", "44khz", 9, 44100 / 512, "8"),
    _dac("dac_24khz", "Descript Audio Codec, 24 kHz", "24khz", 32, 24000 / 320),
    _dac("dac_16khz", "Descript Audio Codec, 16 kHz", "16khz", 12, 16000 / 320),
    _snac("snac_24khz", "SNAC, 24 kHz, speech", 768, (4, 2, 1), 3, 24000 / 512, "0.98"),
    _snac("snac_32khz", "SNAC, 32 kHz, music", 1024, (8, 4, 2, 1), 4, 32000 / 384, "1.9"),
    _snac("snac_44khz", "SNAC, 44 kHz, music", 1024, (8, 4, 2, 1), 4, 44100 / 384, "2.6"),
)
