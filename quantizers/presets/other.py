"""Quantizers of actions and of items to recommend."""

from quantizers.presets.preset import Preset, Published

PRESETS = (
    Preset(
        name="vq_bet",
        model="VQ-BeT in LeRobot, action chunks",
        method="residual",
        options={
            "dim": 256,
            "quantizer": "ema_vq",
            "num_quantizers": 2,
            "codebook_size": 16,
            "decay": 0.8,
            "epsilon": 1e-5,
            "commitment_weight": 1.0,
        },
        published=Published(16, 256, 1, "chunk of 5 actions", num_codebooks=2),
        source="huggingface/lerobot, src/lerobot/policies/vqbet/configuration_vqbet.py, modeling_vqbet.py and "
        "vqbet_utils.py; jayLEE0301/vq_bet_official, examples/configs/pretrain_pusht.yaml (2 × 16 codes)",
        note="The authors' own code has codes of 512 channels, and 10 or 16 of them, by the environment.",
    ),
    Preset(
        name="tiger",
        model="TIGER, semantic IDs",
        method="residual",
        options={
            "dim": 32,
            "quantizer": "vq",
            "num_quantizers": 3,
            "codebook_size": 256,
            "commitment_weight": 0.25,
        },
        published=Published(256, 32, 1, "item", num_codebooks=3),
        source="arXiv 2305.05065 as EdoardoBotta/RQ-VAE-Recommender reproduces it, configs/rqvae_amazon.gin",
        note="A further index that tells items of the same three apart is not the quantizer's.",
    ),
)
