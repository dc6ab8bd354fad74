"""Trained quantizers on the Hugging Face hub.

    from quantizers import hub

    hub.push_to_hub(quantizer, "me/codes")
    quantizer = hub.from_pretrained("me/codes")

A repository contains the files that `quantizers.save` writes, and a model card. Uploads and downloads go through
huggingface_hub's `PyTorchModelHubMixin`. Your own model with that mixin can take the configuration of its
quantizer as an ordinary argument, see `quantizers.configuration`.

Needs huggingface_hub: `pip install quantizers-torch[hub]`.
"""

import os
from pathlib import Path
from typing import Any

from quantizers.core.base import Quantizer
from quantizers.serialization import saving

try:
    from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download
except ImportError as error:
    raise ImportError("quantizers.hub needs huggingface_hub: pip install 'quantizers-torch[hub]'") from error

LIBRARY = "quantizers-torch"
TEXT = """
# {repo_id}

A vector quantizer: `{kind}` of {library}, {size} codes for vectors with {dim} channels.

    pip install '{library}[hub]'

```python
from quantizers import hub

quantizer = hub.from_pretrained("{repo_id}")
indices = quantizer.encode(x)  # x: any shape, with its {dim} channels on axis {channel_dim}
quantized = quantizer.decode(indices)
```
"""


class SharedQuantizer(PyTorchModelHubMixin, library_name=LIBRARY, tags=["vector-quantization"]):
    """Connects a quantizer to `PyTorchModelHubMixin`; the functions below use it."""

    def __init__(self, shared: Quantizer) -> None:
        self.shared = shared

    def _save_pretrained(self, save_directory: Path) -> None:
        saving.save(self.shared, save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **overrides: Any,
    ) -> "SharedQuantizer":
        if os.path.isdir(model_id):
            return cls(saving.load(model_id, **overrides))
        folder = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[saving.CONFIGURATION, saving.WEIGHTS],
        )
        return cls(saving.load(folder, **overrides))

    def generate_model_card(self, *args: Any, repo_id: str = "me/codes", **kwargs: Any) -> ModelCard:
        """The model card: the library, tags, and how to load the quantizer."""
        quantizer = self.shared
        books = f"{quantizer.num_codebooks} × " if quantizer.num_codebooks > 1 else ""
        text = TEXT.format(
            kind=type(quantizer).__name__,
            library=LIBRARY,
            repo_id=repo_id,
            size=f"{books}{quantizer.codebook_size}",
            dim=quantizer.dim,
            channel_dim=quantizer.channel_dim,
        )
        return ModelCard(f"---\n{self._hub_mixin_info.model_card_data.to_yaml()}\n---\n{text}")


def push_to_hub(quantizer: Quantizer, repo_id: str, **options: Any) -> str:
    """Upload a quantizer and its model card to a repository, which is created if it does not exist.

    Args:
        quantizer: any quantizer.
        repo_id: "name/repository".
        options: those of `PyTorchModelHubMixin.push_to_hub`: private, token, branch, commit_message, create_pr and
            others. A README.md in the repository is replaced, unless `ignore_patterns="README.md"`.

    Returns: the URL of the commit.

    Raises: the errors of `quantizers.save` and of huggingface_hub.
    """
    options = {"model_card_kwargs": {"repo_id": repo_id}, "commit_message": "Upload a quantizer", **options}
    return SharedQuantizer(quantizer).push_to_hub(repo_id, **options)


def save_pretrained(quantizer: Quantizer, folder: str | os.PathLike[str], repo_id: str = "me/codes") -> None:
    """Write the files that `push_to_hub` uploads to a folder. A README.md in it is not replaced.

    Raises: the errors of `quantizers.save`.
    """
    path = Path(folder)
    saving.check_folder(path)
    SharedQuantizer(quantizer).save_pretrained(path, model_card_kwargs={"repo_id": repo_id})


def from_pretrained(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    **overrides: Any,
) -> Quantizer:
    """Load the quantizer in a repository on the hub, or in a folder; in evaluation mode.

    Args:
        name: "name/repository", or a folder.
        revision: a branch, a tag or a commit.
        token, cache_dir, force_download, local_files_only: as in all functions of huggingface_hub.
        overrides: options that replace the saved ones, see `quantizers.load`.

    Raises: the errors of `quantizers.load` and of huggingface_hub.
    """
    if os.path.isdir(name):
        return saving.load(name, **overrides)
    found = SharedQuantizer.from_pretrained(
        os.fspath(name),
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
        **overrides,
    )
    return found.shared
