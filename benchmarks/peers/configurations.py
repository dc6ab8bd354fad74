"""Configurations of small models of transformers, for its common tests and for this repository's tests."""

from typing import Any

import transformers

CODES = 16
PAD, BEGIN, END, IMAGE, LINE_END, TEXT, CODE = (
    0,
    1,
    2,
    3,
    4,
    10,
    50,
)  # token ids; TEXT and CODE are the first ids of their kinds
VOCABULARY = CODE + CODES
TEXT_MODEL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": PAD,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
}
IMAGE_MODEL = {
    "embed_dim": 8,
    "latent_channels": 8,
    "base_channels": 32,
    "channel_multiplier": (1, 1),
    "num_res_blocks": 1,
}
SIDE = 4  # side of the grid of codes; the models halve an image once


def dac() -> Any:
    return transformers.DacConfig(
        encoder_hidden_size=8, downsampling_ratios=[2, 4], decoder_hidden_size=32, n_codebooks=2, codebook_size=64
    )


def encodec() -> Any:
    return transformers.EncodecConfig(
        hidden_size=32,
        num_filters=8,
        num_residual_layers=1,
        upsampling_ratios=[8, 4],
        num_lstm_layers=1,
        codebook_size=64,
        target_bandwidths=[9.0, 18.0],
    )


def mimi() -> Any:
    return transformers.MimiConfig(
        sampling_rate=800,
        frame_rate=50,
        upsampling_ratios=[8],
        codebook_size=32,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        hidden_size=16,
        num_filters=4,
        num_quantizers=4,
        num_semantic_quantizers=1,
        num_hidden_layers=1,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=8,
        upsample_groups=16,
    )


def xcodec() -> Any:
    acoustic = transformers.DacConfig(
        encoder_hidden_size=8, decoder_hidden_size=16, hidden_size=16, downsampling_ratios=[4, 2], codebook_size=16
    )
    semantic = transformers.HubertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(4, 2),
        conv_stride=(4, 2),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    return transformers.XcodecConfig(
        acoustic_model_config=acoustic,
        semantic_model_config=semantic,
        codebook_size=16,
        codebook_dim=8,
        sample_rate=8000,
        target_bandwidths=[4.0, 8.0],
        channel_ratios=[1, 1],
        strides=[1, 1],
        block_dilations=[1, 1],
    )


def higgs_audio() -> Any:
    """Return a configuration. The model pads the sound by one step of 320 samples, whatever its strides are."""
    strides = [20, 16]
    acoustic = transformers.DacConfig(
        encoder_hidden_size=8,
        decoder_hidden_size=32,
        hidden_size=16,
        downsampling_ratios=strides,
        upsampling_ratios=strides,
        codebook_size=CODES,
    )
    semantic = transformers.HubertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=strides,
        conv_stride=strides,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    return transformers.HiggsAudioV2TokenizerConfig(
        acoustic_model_config=acoustic,
        semantic_model_config=semantic,
        codebook_size=CODES,
        codebook_dim=8,
        sample_rate=16000,
        target_bandwidths=[0.2, 0.4],
    )


def chameleon() -> Any:
    letters = ["".join(chr(ord("A") + int(digit)) for digit in str(code)) for code in range(CODES)]
    codes = {f"IMGIMG{name}Z": CODE + code for code, name in enumerate(letters)}
    return transformers.ChameleonConfig(
        **TEXT_MODEL,
        vq_config={**IMAGE_MODEL, "num_embeddings": CODES, "resolution": 2 * SIDE, "attn_type": "none"},
        vocabulary_map={"<image>": IMAGE, **codes},
    )


def emu3() -> Any:
    codes = {f"<|visual token {code:06d}|>": CODE + code for code in range(CODES)}
    return transformers.Emu3Config(
        text_config=TEXT_MODEL,
        vq_config={
            **IMAGE_MODEL,
            "codebook_size": CODES,
            "attn_resolutions": (),
            "hidden_size": 32,
            "temporal_downsample_factor": 1,
        },
        vocabulary_map={"<image>": IMAGE, "<|extra_200|>": LINE_END, **codes},
    )


def janus() -> Any:
    return transformers.JanusVQVAEConfig(
        **IMAGE_MODEL, num_embeddings=CODES, num_patches=SIDE, projection_dim=8, image_token_embed_dim=8
    )


def wav2vec2() -> Any:
    return transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(12, 12),
        conv_kernel=(8, 4),
        conv_stride=(4, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        codevector_dim=8,
        num_codevectors_per_group=CODES,
        num_codevector_groups=2,
        proj_codevector_dim=8,
    )
