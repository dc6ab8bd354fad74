"""Sharing on the Hugging Face hub, with a folder instead of its servers."""

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

import quantizers
from quantizers import EMAVectorQuantizer, Quantizer, ResidualQuantizer, VectorQuantizer, hub
from quantizers.serialization.configuration import configuration, rebuild
from tests.cases import assert_same_state, batch, halved


class Server:
    """The part of the hub's API that an upload and a download use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[dict[str, Any]] = []

    def __call__(self, token: str | None = None) -> "Server":
        self.calls.append({"token": token})
        return self

    def create_repo(self, **options: Any) -> Any:
        self.calls.append(options)
        return NamedTuple("Repository", [("repo_id", str)])(options["repo_id"])

    def upload_folder(self, **options: Any) -> str:
        self.calls.append(options)
        shutil.copytree(options["folder_path"], self.folder / options["repo_id"])
        return "https://hub/commit"

    def hf_hub_download(self, repo_id: str, filename: str, **options: Any) -> str:
        return str(self.folder / repo_id / filename)

    def snapshot_download(self, repo_id: str, allow_patterns: list[str], **options: Any) -> str:
        self.calls.append(options)
        cache = self.folder / "cache"
        cache.mkdir()
        for name in allow_patterns:
            shutil.copy(self.folder / repo_id / name, cache)
        return str(cache)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server(tmp_path)
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", server)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", server.hf_hub_download)
    monkeypatch.setattr("quantizers.serialization.hub.snapshot_download", server.snapshot_download)
    return server


def quantizer_of_the_user() -> Quantizer:
    quantizer = ResidualQuantizer(4, [EMAVectorQuantizer(4, 8), VectorQuantizer(4, 6, gradient=halved)])
    quantizer(batch(20))
    return quantizer


def test_what_is_pushed_comes_back(server: Server) -> None:
    quantizer = quantizer_of_the_user()
    address = hub.push_to_hub(quantizer, "me/codes", private=True, token="secret", branch="dev")
    assert address == "https://hub/commit"
    token, repository, upload = server.calls
    assert token == {"token": "secret"}
    assert repository == {"repo_id": "me/codes", "private": True, "exist_ok": True}
    assert (upload["revision"], upload["commit_message"]) == ("dev", "Upload a quantizer")
    pushed = {file.name for file in (server.folder / "me" / "codes").iterdir()}
    assert pushed == {"config.json", "model.safetensors", "README.md"}

    loaded = hub.from_pretrained("me/codes", revision="v1", local_files_only=True, gradient=halved)
    options = server.calls[-1]
    assert (options["revision"], options["local_files_only"], options["force_download"]) == ("v1", True, False)
    assert_same_state(dict(quantizer.state_dict()), dict(loaded.state_dict()))
    assert not loaded.training
    assert loaded.components[1].gradient.function is halved


def test_a_folder_is_as_the_repository(tmp_path: Path) -> None:
    quantizer = quantizer_of_the_user()
    hub.save_pretrained(quantizer, tmp_path / "codes", "me/codes")
    for load in (hub.from_pretrained, quantizers.load):
        loaded = load(tmp_path / "codes", gradient=halved)
        assert_same_state(dict(quantizer.state_dict()), dict(loaded.state_dict()))
    by_mixin = hub.SharedQuantizer.from_pretrained(tmp_path / "codes", gradient=halved)
    assert isinstance(by_mixin.shared, ResidualQuantizer)
    quantizers.save(quantizer, tmp_path / "plain")
    assert not (tmp_path / "plain" / "README.md").exists()
    assert isinstance(hub.from_pretrained(tmp_path / "plain", gradient=halved), ResidualQuantizer)


def test_the_model_card_says_what_it_is_and_how_to_load_it(tmp_path: Path) -> None:
    hub.save_pretrained(quantizer_of_the_user(), tmp_path, "me/codes")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "quantizers-torch"
    assert {"vector-quantization", "pytorch_model_hub_mixin"} <= set(card.data.tags)
    assert "`ResidualQuantizer` of quantizers-torch, 2 × 8 codes for vectors with 4 channels" in card.text
    code = card.text.split("```python\n")[1].split("```")[0]
    code = code.replace('"me/codes"', f"{str(tmp_path)!r}, gradient=halved")
    names = {"halved": halved, "x": batch(5)}
    exec(compile(code, "card", "exec"), names)
    assert names["quantized"].shape == (5, 4)
    (tmp_path / "README.md").write_text("mine")
    hub.save_pretrained(quantizer_of_the_user(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_folder_of_another_library_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FileExistsError, match=r"config.json is not the configuration of a quantizer"):
        hub.save_pretrained(VectorQuantizer(4, 8), tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"model_type": "bert"}'


class Autoencoder(nn.Module, PyTorchModelHubMixin):
    """A model of the user's, which takes a quantizer's configuration as any other option."""

    def __init__(self, quantizer: dict[str, Any], width: int = 6) -> None:
        super().__init__()
        self.encoder = nn.Linear(width, 4)
        self.quantizer = rebuild(quantizer)

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer(self.encoder(x)).quantized


def test_a_model_of_the_users_holds_a_quantizer_by_its_configuration(tmp_path: Path) -> None:
    made = ResidualQuantizer(4, [EMAVectorQuantizer(4, 8)] * 2)
    model = Autoencoder(configuration(made), width=3)
    model(torch.randn(20, 3))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["quantizer"] == configuration(model.quantizer)
    loaded = Autoencoder.from_pretrained(tmp_path)
    x = torch.randn(9, 3)
    assert torch.equal(loaded(x), model.eval()(x))
    assert loaded.quantizer.order == (0, 0)


class SharedByMixin(VectorQuantizer, PyTorchModelHubMixin):
    """A user's quantizer with the mixin of its own: both keep the constructor's arguments."""


def test_a_quantizer_may_take_the_mixin_itself(tmp_path: Path) -> None:
    quantizer = SharedByMixin(4, 8, distance="cosine")
    quantizer.save_pretrained(tmp_path / "mixin")
    quantizers.save(quantizer, tmp_path / "library")
    for loaded in (SharedByMixin.from_pretrained(tmp_path / "mixin"), quantizers.load(tmp_path / "library")):
        assert loaded.distance == "cosine"
        assert torch.equal(loaded.embedding, quantizer.embedding)


def test_without_huggingface_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "quantizers.serialization.hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"needs huggingface_hub: pip install 'quantizers-torch\[hub\]'"):
        importlib.import_module("quantizers.serialization.hub")
