"""Codecs of speech, and quantizers that give a speech model its targets."""

from quantizers.presets.preset import Preset, Published
from quantizers.presets.split_residual import split_residual

_GROUPED_FSQ_NOTE = (
    "For an even number of levels the published code shifts its input by tan where FSQ's paper has artanh, and "
    "its bound lies a little below the outermost levels, not above: thresholds differ."
)

_RESIDUAL_FSQ_NOTE = (
    "The published code is the one-stage ResidualFSQ of vector-quantize-pytorch, which also bounds x before the "
    "stage: thresholds differ."
)


def _wavtokenizer(rate: int, model: str) -> Preset:
    return Preset(
        name=f"wavtokenizer_{rate}",
        model=model,
        method="ema_vq",
        options={"dim": 512, "codebook_size": 4096, "decay": 0.99, "epsilon": 1e-5},
        published=Published(4096, 512, float(rate), "second", indices=rate),
        source="arXiv 2408.16532; jishengpeng/WavTokenizer, README.md, decoder/feature_extractors.py, "
        f"encoder/quantization/core_vq.py and configs/wavtokenizer_smalldata_frame{rate}_3s_nq1_code4096_dim512_"
        "kmeans200_attn.yaml",
        note="Codes start from k-means (200 iterations): see `warm_start`.",
    )


PRESETS = (
    Preset(
        name="mimi",
        model="Mimi, 24 kHz, as Moshi uses it",
        method=split_residual,
        options={
            "dim": 512,
            "codebook_size": 2048,
            "num_quantizers": 8,
            "num_semantic": 1,
            "stage_dim": 256,
            "quantizer": "ema_vq",
            "decay": 0.99,
        },
        published=Published(2048, 256, 12.5, "second", num_codebooks=8, bitrate="1.1"),
        source="arXiv 2410.00037; kyutai-labs/moshi, README.md, moshi/models/loaders.py and "
        "moshi/quantization/vq.py; transformers 5.23, defaults of MimiConfig",
        note="The published value is the sum of the two halves, here their mean, which their projections can make "
        "up for. The checkpoint has 32 codebooks, of which Moshi reads 8. The distillation of the first codebook "
        "is a loss of the model.",
    ),
    Preset(
        name="speechtokenizer",
        model="SpeechTokenizer, 16 kHz",
        method="residual",
        options={
            "dim": 1024,
            "quantizer": "ema_vq",
            "num_quantizers": 8,
            "codebook_size": 1024,
            "decay": 0.99,
            "epsilon": 1e-5,
        },
        published=Published(1024, 1024, 16000 / 320, "second", num_codebooks=8, bitrate="4"),
        source="arXiv 2308.16692; ZhangXInFD/SpeechTokenizer, config/spt_base_cfg.json and "
        "speechtokenizer/quantization/core_vq.py; the bitrate from README.md of kyutai-labs/moshi",
        note="The distillation of the first codebook is a loss of the model.",
    ),
    _wavtokenizer(40, "WavTokenizer, 24 kHz, 40 tokens per second"),
    _wavtokenizer(75, "WavTokenizer, 24 kHz, 75 tokens per second"),
    Preset(
        name="cosyvoice2",
        model="CosyVoice 2, S3 tokenizer v2, 25 Hz",
        method="fsq",
        options={"dim": 1280, "levels": (3,) * 8},
        published=Published(6561, 8, 25.0, "second"),
        source="arXiv 2412.10117; xingchensong/S3Tokenizer, README.md and s3tokenizer/model_v2.py; "
        "FunAudioLLM/CosyVoice, cosyvoice/flow/flow.py (6561 tokens)",
        note="The published code rounds 0.999 · tanh(z), here 1.001 · tanh(z). Its projection out of the code is "
        "not published.",
    ),
    Preset(
        name="xcodec2",
        model="X-codec 2, 16 kHz",
        method="fsq",
        options={"dim": 2048, "levels": (4,) * 8},
        published=Published(65536, 8, 50.0, "second", indices=50),
        source="arXiv 2502.04128; zhenye234/X-Codec-2.0, README.md and vq/codec_decoder_vocos.py; transformers "
        "5.23, defaults of Xcodec2Config and models/xcodec2/modeling_xcodec2.py",
        note=_RESIDUAL_FSQ_NOTE,
    ),
    Preset(
        name="neucodec",
        model="NeuCodec",
        method="fsq",
        options={"dim": 2048, "levels": (4,) * 8},
        published=Published(65536, 8, 50.0, "second", indices=50, bitrate="0.8"),
        source="arXiv 2509.09550; neuphonic/neucodec, README.md and neucodec/codec_decoder_vocos.py",
        note=_RESIDUAL_FSQ_NOTE,
    ),
    Preset(
        name="nanocodec_0.6kbps",
        model="NeMo NanoCodec, 22.05 kHz, 0.6 kbit/s",
        method="grouped",
        options={"dim": 16, "quantizer": "fsq", "num_groups": 4, "levels": (9, 8, 8, 7)},
        published=Published(4032, 4, 12.5, "second", num_codebooks=4, bitrate="0.6"),
        source="arXiv 2508.05835; the name of nvidia/nemo-nano-codec-22khz-0.6kbps-12.5fps on Hugging Face for "
        "the rates; groups and levels from README.md of the public port rlx-nanocodec; NVIDIA/NeMo, "
        "nemo/collections/tts/modules/audio_codec_modules.py",
        note=_GROUPED_FSQ_NOTE,
    ),
    Preset(
        name="nemo_low_frame_rate",
        model="NeMo Low Frame-rate Speech Codec, 22.05 kHz",
        method="grouped",
        options={"dim": 32, "quantizer": "fsq", "num_groups": 8, "levels": (8, 7, 6, 6)},
        published=Published(2016, 4, 22050 / 1024, "second", num_codebooks=8, bitrate="1.89"),
        source="arXiv 2409.12117; model card of nvidia/low-frame-rate-speech-codec-22khz; NVIDIA/NeMo, "
        "examples/tts/conf/audio_codec/audio_codec_low_frame_rate_22050.yaml",
        note=_GROUPED_FSQ_NOTE,
    ),
    Preset(
        name="wav2vec2",
        model="wav2vec 2.0 Base, targets",
        method="grouped",
        options={
            "dim": 256,
            "quantizer": "gumbel",
            "num_groups": 2,
            "codebook_size": 320,
            "logits": "linear",
            "hard": True,
            "temperature": 2.0,
        },
        published=Published(320, 128, 50.0, "second", num_codebooks=2),
        source="arXiv 2006.11477; transformers 5.23, defaults of Wav2Vec2Config and "
        "models/wav2vec2/modeling_wav2vec2.py",
        note="The published logits of each group are a linear map of all 512 channels of the features; here x has "
        "the 256 channels of the codes, and a group sees its own half. The diversity loss is the model's.",
    ),
    Preset(
        name="best_rq",
        model="BEST-RQ, targets",
        method="random_projection",
        options={"dim": 320, "codebook_size": 8192, "code_dim": 16},
        published=Published(8192, 16, 1, "4 frames of 80 log-mel channels"),
        source="arXiv 2202.01855 as the recipe of speechbrain/speechbrain reproduces it, "
        "recipes/LibriSpeech/self-supervised-learning/BEST-RQ/hparams/BEST-RQ.yaml; the same K and code channels "
        "in NVIDIA/NeMo, examples/asr/conf/ssl/nest/nest_fast-conformer.yaml",
    ),
)
