"""transformers' common tests on small models of its codecs: run from a checkout or source distribution of it.

The model tests of transformers are in its repository, the common tests in its source distribution too; these
classes say of each model what those need, a configuration and inputs.
"""

import unittest
from typing import Any

import torch
import transformers
from tests.test_modeling_common import ModelTesterMixin

SAMPLES = 400


def audio() -> dict[str, Any]:
    return {"input_values": torch.randn(2, 1, SAMPLES, generator=torch.Generator().manual_seed(0))}


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


class Tester:
    """What the common tests ask for a configuration and inputs."""

    batch_size = 2
    is_training = False  # these models give no loss

    def __init__(self, make: Any, inputs: Any) -> None:
        self._make, self._inputs = make, inputs

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, Any]]:
        return self._make(), self._inputs()


class CodecTest(ModelTesterMixin):
    """Common tests of one codec, those about attention, embeddings and generation left out."""

    is_encoder_decoder = True
    test_resize_embeddings = False
    has_attentions = False
    test_torch_exportable = False
    make: Any

    def setUp(self) -> None:
        self.model_tester = Tester(type(self).make, audio)


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


del CodecTest  # no test by itself
