"""transformers' common tests on small models, run from a checkout or source distribution of transformers.

The model tests of transformers are only in its repository; the common tests are in its source distribution too.
These classes supply a configuration and inputs for each model.
"""

import functools
import unittest
from typing import Any

import torch
import transformers
from tests.test_modeling_common import ModelTesterMixin
from transformers.utils import is_torchaudio_available

SAMPLES = 400
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


def audio(samples: int = SAMPLES) -> dict[str, Any]:
    return {"input_values": torch.randn(2, 1, samples, generator=torch.Generator().manual_seed(0))}


def mono() -> dict[str, Any]:
    return {"input_values": audio()["input_values"][:, 0]}


def images() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, 2 * SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(0))}


def captioned(tokens: int) -> dict[str, Any]:
    """Return images and the token ids of `tokens` image positions followed by a text."""
    text = torch.randint(TEXT, CODE, (2, 7), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.full((2, tokens), IMAGE), text], dim=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images()}


def sized_and_captioned() -> dict[str, Any]:
    """Return inputs for Emu3, which ends each line of codes with a special token."""
    sizes = torch.full((2, 2), 2 * SIDE)
    return {**captioned(SIDE * (SIDE + 1)), "image_sizes": sizes}


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


class Tester:
    """Supplies the configuration and inputs that the common tests request."""

    batch_size = 2
    is_training = False  # these models return no loss

    def __init__(self, make: Any, inputs: Any) -> None:
        self._make, self._inputs = make, inputs

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, Any]]:
        return self._make(), self._inputs()


class SmallTest(ModelTesterMixin):
    """Common tests of one model, without those about attention, embeddings and generation."""

    test_resize_embeddings = False
    has_attentions = False
    test_torch_exportable = False
    make: Any
    inputs: Any

    def setUp(self) -> None:
        self.model_tester = Tester(type(self).make, type(self).inputs)


class CodecTest(SmallTest):
    is_encoder_decoder = True
    inputs = staticmethod(audio)


class DacTest(CodecTest, unittest.TestCase):
    all_model_classes = (transformers.DacModel,)
    make = staticmethod(dac)


class EncodecTest(CodecTest, unittest.TestCase):
    all_model_classes = (transformers.EncodecModel,)
    make = staticmethod(encodec)


class MimiTest(CodecTest, unittest.TestCase):
    all_model_classes = (transformers.MimiModel,)
    make = staticmethod(mimi)


class XcodecTest(CodecTest, unittest.TestCase):
    all_model_classes = (transformers.XcodecModel,)
    make = staticmethod(xcodec)


@unittest.skipUnless(is_torchaudio_available(), "the model needs torchaudio")
class HiggsAudioTest(CodecTest, unittest.TestCase):
    all_model_classes = (transformers.HiggsAudioV2TokenizerModel,) if is_torchaudio_available() else ()
    make = staticmethod(higgs_audio)
    inputs = staticmethod(functools.partial(audio, 8 * SAMPLES))


class ChameleonTest(SmallTest, unittest.TestCase):
    all_model_classes = (transformers.ChameleonModel, transformers.ChameleonForConditionalGeneration)
    make = staticmethod(chameleon)
    inputs = staticmethod(functools.partial(captioned, SIDE * SIDE))


class Emu3Test(SmallTest, unittest.TestCase):
    all_model_classes = (transformers.Emu3Model, transformers.Emu3ForConditionalGeneration)
    make = staticmethod(emu3)
    inputs = staticmethod(sized_and_captioned)


class JanusVqvaeTest(SmallTest, unittest.TestCase):
    all_model_classes = (transformers.JanusVQVAE,)
    make = staticmethod(janus)
    inputs = staticmethod(images)


class Wav2Vec2Test(SmallTest, unittest.TestCase):
    all_model_classes = (transformers.Wav2Vec2ForPreTraining,)
    make = staticmethod(wav2vec2)
    inputs = staticmethod(mono)


del SmallTest, CodecTest  # base classes, which pytest must not collect
