"""Tokenizers of images."""

from quantizers.presets.preset import Preset, Published
from quantizers.scalar.published import PUBLISHED

_IMAGE_256 = "image of 256 × 256 pixels"
_INFINITY_SIDES = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
_VAR_SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def _titok(name: str, model: str, tokens: int) -> Preset:
    return Preset(
        name=name,
        model=model,
        method="vq",
        options={
            "dim": 12,
            "codebook_size": 4096,
            "distance": "cosine",
            "commitment_weight": 0.25,
            "codebook_weight": 1.0,
        },
        published=Published(4096, 12, (tokens,), _IMAGE_256, indices=tokens),
        source=f"arXiv 2406.07550; bytedance/1d-tokenizer, configs/infer/TiTok/{name}.yaml and "
        "modeling/quantizer/quantizer.py",
        note="The vectors are a sequence of latent tokens and form no map.",
    )


PRESETS = (
    Preset(
        name="chameleon",
        model="Chameleon, image tokenizer",
        method="vq",
        options={"dim": 256, "codebook_size": 8192, "commitment_weight": 1.0, "codebook_weight": 0.25},
        published=Published(8192, 256, (32, 32), "image of 512 × 512 pixels", indices=1024),
        source="arXiv 2405.09818; transformers 5.23, defaults of ChameleonVQVAEConfig and ChameleonProcessor, and "
        "the loss in models/chameleon/modeling_chameleon.py",
    ),
    Preset(
        name="janus",
        model="Janus and Janus-Pro, image generation",
        method="vq",
        options={"dim": 8, "codebook_size": 16384, "distance": "cosine"},
        published=Published(16384, 8, (24, 24), "image of 384 × 384 pixels", indices=576),
        source="arXiv 2501.17811; transformers 5.23, defaults of JanusVQVAEConfig and JanusVisionConfig",
        note="The decoder gets codes of unit norm, as here, but transformers searches codes of any norm.",
    ),
    Preset(
        name="llamagen",
        model="LlamaGen, tokenizer ds16",
        method="vq",
        options={
            "dim": 8,
            "codebook_size": 16384,
            "distance": "cosine",
            "commitment_weight": 0.25,
            "codebook_weight": 1.0,
        },
        published=Published(16384, 8, (16, 16), _IMAGE_256),
        source="arXiv 2406.06525; FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py and README.md",
    ),
    _titok("titok_l32", "TiTok-L-32", 32),
    _titok("titok_b64", "TiTok-B-64", 64),
    _titok("titok_s128", "TiTok-S-128", 128),
    Preset(
        name="emu3.5",
        model="Emu3.5, vision tokenizer",
        method="ibq",
        options={
            "dim": 256,
            "codebook_size": 131072,
            "commitment_weight": 1.0,
            "double_weight": 1.0,
            "codebook_weight": 0.25,
        },
        published=Published(131072, 256, (32, 32), "image of 512 × 512 pixels"),
        source="arXiv 2510.26583; baaivision/Emu3.5, src/tokenizer_emu3_ibq/emu3_vision_tokens.txt (131,072 "
        "visual tokens), src/utils/input_utils.py (one token for 16 × 16 pixels) and the loss in "
        "src/vision_tokenizer/modules/vqvae/quantize.py; the 256 channels of a code from a summary of the paper "
        "(emergentmind.com/topics/emu3-5)",
        note="The weight of the entropy term is not published.",
    ),
    Preset(
        name="ibq_16384",
        model="IBQ, 16,384 codes, ImageNet",
        method="ibq",
        options={
            "dim": 256,
            "codebook_size": 16384,
            "commitment_weight": 1.0,
            "double_weight": 1.0,
            "codebook_weight": 0.25,
            "entropy_weight": 0.05,
            "entropy_temperature": 0.01,
        },
        published=Published(16384, 256, (16, 16), _IMAGE_256),
        source="arXiv 2412.02692; TencentARC/Open-MAGVIT2, configs/IBQ/gpu/imagenet_ibqgan_16384.yaml, "
        "docs/IBQ.md, and the loss in src/IBQ/modules/vqvae/quantize.py",
    ),
    Preset(
        name="open_magvit2",
        model="Open-MAGVIT2, ImageNet 256 × 256",
        method="lfq",
        options={"dim": 18, "codebook_size": 2**18, **PUBLISHED["open-magvit2"]},
        published=Published(262144, 18, (16, 16), _IMAGE_256),
        source="arXiv 2409.04410; TencentARC/Open-MAGVIT2, configs/Open-MAGVIT2/gpu/imagenet_lfqgan_256_L.yaml, "
        "docs/Open-MAGVIT2.md, and src/Open_MAGVIT2/modules/vqvae/lookup_free_quantize.py",
    ),
    Preset(
        name="wetok_f8",
        model="WeTok, ImageNet, one vector for 8 × 8 pixels",
        method="grouped",
        options={
            "dim": 32,
            "quantizer": "lfq",
            "num_groups": 4,
            "codebook_size": 256,
            "group_bits": 8,
            "temperature": 0.01,
            "entropy_weight": 0.1,
            "diversity": 1.0,
            "commitment_weight": 0.25,
        },
        published=Published(256, 8, (32, 32), _IMAGE_256, num_codebooks=4),
        source="arXiv 2508.05599; zhuangshaobin/WeTok, configs/WeToK/Inference/ImageNet_downsample8_imagenet.yaml",
        note="The published loss compares the mean assignment over all groups with the uniform one; here each "
        "group has a mean of its own.",
    ),
    Preset(
        name="infinity",
        model="Infinity, tokenizer with 32 bits, as in Infinity-2B",
        method="multiscale",
        options={
            "dim": 32,
            "quantizer": "bsq",
            "codebook_size": 2**32,
            "scales": tuple(side / 64 for side in _INFINITY_SIDES),
            "axes": 2,
            "shared": True,
            "interpolation": "linear",
            **PUBLISHED["infinity"],
        },
        published=Published(4294967296, 32, (64, 64), "image of 1024 × 1024 pixels"),
        source="arXiv 2412.04431; FoundationVision/Infinity, README.md, scripts/infer.sh, "
        "infinity/utils/dynamic_resolution.py (scales), infinity/models/bsq_vae/vae.py and multiscale_bsq.py",
        note="The published code stops the gradient between the scales. With 512 × 512 pixels it has the first 10 "
        "of the sizes, with 256 × 256 the first 7: pass `sizes` to forward. Its other tokenizers have 16, 24 and "
        "64 bits: set dim and codebook_size; 64 are one more than an index of int64 holds.",
    ),
    Preset(
        name="var",
        model="VAR, tokenizer for 256 × 256",
        method="var",
        options={
            "dim": 32,
            "codebook_size": 4096,
            "scales": tuple(side / 16 for side in _VAR_SIDES),
            "axes": 2,
            "shared": True,
            "num_blends": 4,
            "blend_ratio": 0.5,
            "commitment_weight": 0.25,
            "codebook_weight": 1.0,
        },
        published=Published(4096, 32, (16, 16), _IMAGE_256),
        source="arXiv 2404.02905; FoundationVision/VAR, models/__init__.py, models/vqvae.py and models/quant.py",
    ),
    Preset(
        name="unitok",
        model="UniTok-Large",
        method="grouped",
        options={
            "dim": 64,
            "quantizer": "vq",
            "num_groups": 8,
            "codebook_size": 4096,
            "distance": "cosine",
            "commitment_weight": 0.25,
            "codebook_weight": 1.0,
        },
        published=Published(4096, 8, (16, 16), _IMAGE_256, num_codebooks=8, indices=2048),
        source="arXiv 2502.20321; FoundationVision/UniTok, launch.sh and utils/config.py (32,768 codes of 64 "
        "channels in all), models/quant.py, and the shape of the codes in README.md",
    ),
    Preset(
        name="cosmos_di16x16",
        model="Cosmos-Tokenizer-DI16x16",
        method="fsq",
        options={"dim": 6, "levels": (8, 8, 8, 5, 5, 5)},
        published=Published(64000, 6, (1, 1), "16 × 16 pixels"),
        source="arXiv 2501.03575; NVIDIA/Cosmos-Tokenizer, cosmos_tokenizer/networks/configs.py and README.md",
    ),
)
