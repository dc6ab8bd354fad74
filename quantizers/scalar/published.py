"""Losses of published models that quantize to bits, as options of LFQ and BSQ.

    >>> import quantizers
    >>> from quantizers.scalar.published import PUBLISHED
    >>> quantizer = quantizers.create("bsq", dim=256, codebook_size=2**18, **PUBLISHED["bsq-vit"])

They are settings of the quantizer in trainings with L1, LPIPS and adversarial losses over hundreds of thousands of
steps; the defaults of LFQ and BSQ suit a plain squared error.

**Temperatures.** The published losses take a softmax of logits over all codes. Ours are −‖u − c‖² / T, which equal
2 u·c / T up to a constant of the vector. The others' are

    2 u·c · inv_temperature   (BSQ)    ⇒ T = 1 / inv_temperature
    2 z·c / temperature       (LFQ)    ⇒ T = temperature

BSQ also divides its entropy terms by inv_temperature, which is part of `entropy_weight` here.

**Commitment.** Ours is a mean over vectors and channels. BSQ's authors sum over channels: their β is β · L here (0
in their configurations). LFQ's is a mean, as ours.

**What remains different.** BSQ's authors scale the gradient that passes straight through by 1/√L; here it passes
unscaled, to the vector on the sphere. All of them add 10⁻⁵ or 10⁻⁸ inside logarithms; here nothing is added.
"""

from typing import TypedDict


class BitLoss(TypedDict):
    """The options of the loss of LFQ and BSQ."""

    group_bits: int
    temperature: float
    entropy_weight: float
    diversity: float
    commitment_weight: float


PUBLISHED: dict[str, BitLoss] = {
    # For "bsq", 18 bits. Zhao, Xiong, Krähenbühl 2024 (arXiv 2406.07548); repository zhaoyue-zephyrus/bsq-vit,
    # configs/tokenizer/imagenet_128x128_bsqvit_stylegan_f8_fp16.yaml (embed_group_size 9, codebook_weight 0.1,
    # beta 0) and the constructor in transcoder/models/bsqvit.py (inv_temperature, gamma0, gamma and zeta 1). In
    # the first 2,000 steps the weight falls to this value from three times as much, see `schedules.LinearEntropy`.
    "bsq-vit": {
        "group_bits": 9,
        "temperature": 1.0,
        "entropy_weight": 0.1,
        "diversity": 1.0,
        "commitment_weight": 0.0,
    },
    # For "bsq" on 256 × 256 images: the same repository, imagenet_256x256_bsqvit_b18g18_stylegan_f8_fp16.yaml
    # (embed_group_size 1), the approximation by single bits of equation (8) of the paper.
    "bsq-vit-bitwise": {
        "group_bits": 1,
        "temperature": 1.0,
        "entropy_weight": 0.1,
        "diversity": 1.0,
        "commitment_weight": 0.0,
    },
    # For "lfq", 18 bits. Luo et al.: Open-MAGVIT2, 2024 (arXiv 2409.04410); repository TencentARC/Open-MAGVIT2
    # (now SEED-Voken), configs/Open-MAGVIT2/gpu/imagenet_lfqgan_256_L.yaml (n_embed 2¹⁸, codebook_weight 0.1,
    # commit_weight 0.25) and taming/modules/vqvae/lookup_free_quantize.py (temperature 0.01).
    "open-magvit2": {
        "group_bits": 18,
        "temperature": 0.01,
        "entropy_weight": 0.1,
        "diversity": 1.0,
        "commitment_weight": 0.25,
    },
    # For "lfq", 32 bits. Zhuang et al.: WeTok, 2025 (arXiv 2508.05599); repository zhuangshaobin/WeTok, configs/
    # WeToK/Inference/ImageNet_downsample8_imagenet.yaml (four codebooks of 2⁸, codebook_weight 0.1, commit_weight
    # 0.25). Their entropies are means over the four groups, ours are sums, hence the quarter. They also take the
    # mean assignment over the groups, so that a pattern may be frequent in one if it is rare in another; here each
    # group has a mean of its own.
    "wetok": {
        "group_bits": 8,
        "temperature": 0.01,
        "entropy_weight": 0.1 / 4,
        "diversity": 1.0,
        "commitment_weight": 0.25,
    },
    # For "bsq", one scale of its residual quantizer. Han et al.: Infinity, 2024 (arXiv 2412.04431); repository
    # FoundationVision/BitVAE, bitvae/modules/quantizer/multiscale_bsq.py (inv_temperature 100, by which the
    # entropy terms of weight 0.1 are divided; a commitment of 0.25). The script for 16 bits multiplies the mean
    # loss of all scales by 4, which is not included.
    "infinity": {
        "group_bits": 1,
        "temperature": 0.01,
        "entropy_weight": 0.1 / 100,
        "diversity": 1.0,
        "commitment_weight": 0.25,
    },
}
"""By model; the comment of each says for which quantizer and how many bits, and where the numbers are from."""
