"""A quantizer with the interface of transformers' HiggsAudioV2TokenizerModel, which needs torchaudio."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class Codebook(nn.Module):
    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        for name, shape in (("cluster_size", (size,)), ("embed", (size, dim)), ("embed_avg", (size, dim))):
            self.register_buffer(name, torch.zeros(shape))


class Stage(nn.Module):
    """Each stage projects: hidden channels to those of the codes, and back."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.codebook = Codebook(config.codebook_size, config.codebook_dim)
        self.project_in = nn.Linear(config.hidden_size, config.codebook_dim)
        self.project_out = nn.Linear(config.codebook_dim, config.hidden_size)

    def encode(self, x: Tensor) -> Tensor:
        return torch.cdist(self.project_in(x.transpose(1, 2)), self.codebook.embed).argmin(-1)

    def decode(self, indices: Tensor) -> Tensor:
        return self.project_out(self.codebook.embed[indices]).transpose(1, 2)


class HiggsAudioV2TokenizerResidualVectorQuantization(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(Stage(config) for _ in range(config.num_quantizers))
        self.frame_rate, self.codebook_size = config.frame_rate, config.codebook_size
        self.num_quantizers = config.num_quantizers

    def get_bandwidth_per_quantizer(self) -> float:
        return math.log2(self.codebook_size) * self.frame_rate / 1000

    def get_num_quantizers_for_bandwidth(self, bandwidth: float | None = None) -> int:
        if bandwidth is None or bandwidth <= 0:
            return self.num_quantizers
        return max(1, math.floor(bandwidth / self.get_bandwidth_per_quantizer()))

    def encode(self, embeddings: Tensor, bandwidth: float | None = None) -> Tensor:
        found, residual = [], embeddings
        for stage in self.quantizers[: self.get_num_quantizers_for_bandwidth(bandwidth)]:
            found.append(stage.encode(residual))
            residual = residual - stage.decode(found[-1])
        return torch.stack(found)

    def decode(self, codes: Tensor) -> Tensor:
        pairs = zip(self.quantizers, codes, strict=False)
        return sum((stage.decode(indices) for stage, indices in pairs), torch.zeros(()))
