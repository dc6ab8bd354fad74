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

from benchmarks.peers import configurations
from benchmarks.peers.configurations import CODE, IMAGE, SIDE, TEXT

SAMPLES = 400


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
    make = staticmethod(configurations.dac)


class EncodecTest(CodecTest, unittest.TestCase):
    all_model_classes = (transformers.EncodecModel,)
    make = staticmethod(configurations.encodec)


class MimiTest(CodecTest, unittest.TestCase):
    all_model_classes = (transformers.MimiModel,)
    make = staticmethod(configurations.mimi)


class XcodecTest(CodecTest, unittest.TestCase):
    all_model_classes = (transformers.XcodecModel,)
    make = staticmethod(configurations.xcodec)


@unittest.skipUnless(is_torchaudio_available(), "the model needs torchaudio")
class HiggsAudioTest(CodecTest, unittest.TestCase):
    all_model_classes = (transformers.HiggsAudioV2TokenizerModel,) if is_torchaudio_available() else ()
    make = staticmethod(configurations.higgs_audio)
    inputs = staticmethod(functools.partial(audio, 8 * SAMPLES))


class ChameleonTest(SmallTest, unittest.TestCase):
    all_model_classes = (transformers.ChameleonModel, transformers.ChameleonForConditionalGeneration)
    make = staticmethod(configurations.chameleon)
    inputs = staticmethod(functools.partial(captioned, SIDE * SIDE))


class Emu3Test(SmallTest, unittest.TestCase):
    all_model_classes = (transformers.Emu3Model, transformers.Emu3ForConditionalGeneration)
    make = staticmethod(configurations.emu3)
    inputs = staticmethod(sized_and_captioned)


class JanusVqvaeTest(SmallTest, unittest.TestCase):
    all_model_classes = (transformers.JanusVQVAE,)
    make = staticmethod(configurations.janus)
    inputs = staticmethod(images)


class Wav2Vec2Test(SmallTest, unittest.TestCase):
    all_model_classes = (transformers.Wav2Vec2ForPreTraining,)
    make = staticmethod(configurations.wav2vec2)
    inputs = staticmethod(mono)


del SmallTest, CodecTest  # base classes, which pytest must not collect
