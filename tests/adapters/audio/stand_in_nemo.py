"""Small quantizers with the interface of NeMo's audio codecs, written from the contract.

They have the package's names of modules and buffers, its arguments by name, its losses and its averages, and leave
out dead codes, ranks and neural types. Their k-means is a copy of the first vectors.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def masked(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Values [B, ..., T] with zeros beyond the lengths [B]."""
    if lengths is None:
        return values
    positions = torch.arange(values.shape[-1]).expand(len(lengths), -1)
    return values * (positions < lengths[:, None]).view(len(lengths), *(1,) * (values.dim() - 2), -1)


class Module(nn.Module):
    """A quantizer whose calls take arguments by name alone."""

    with_loss = False

    def freeze(self) -> None:
        raise NotImplementedError

    @property
    def output_types(self) -> dict[str, object]:
        names = ("dequantized", "indices", "commit_loss")
        return dict.fromkeys(names if self.with_loss else names[:2])


class FiniteScalarQuantizer(Module):
    def __init__(self, num_levels: list[int], eps: float = 1e-3) -> None:
        super().__init__()
        counts = torch.tensor(num_levels, dtype=torch.int32)
        base = torch.cat([torch.ones(1, dtype=torch.int32), counts.cumprod(0)[:-1].int()])
        self.register_buffer("dim_base_index", base[None, :, None])
        self.register_buffer("num_levels", counts[None, :, None])
        self.eps = eps

    @property
    def codebook_size(self) -> int:
        return int(self.num_levels.prod())

    @property
    def dim(self) -> int:
        return self.num_levels.numel()

    @property
    def codebook_dim(self) -> int:
        return self.dim

    @property
    def codes(self) -> Tensor:
        indices = torch.arange(self.codebook_size)[None, :, None]
        return self.decode(indices=indices, input_len=None)[..., 0]

    def compress(self, inputs: Tensor) -> Tensor:
        scale = (self.num_levels - 1) / 2 * (1 - self.eps)
        offset = torch.where(self.num_levels % 2 == 0, 0.5, 0.0)
        return scale * (inputs + (offset / scale).tan()).tanh() - offset

    def forward(self, *, inputs: Tensor, input_len: Tensor | None = None) -> tuple[Tensor, Tensor]:
        bounded, half = self.compress(inputs), self.num_levels // 2
        levels = bounded + (bounded.round() - bounded).detach()
        indices = ((levels + half) * self.dim_base_index).sum(1).to(torch.int32)
        return masked(levels / half, input_len), masked(indices, input_len)[None]

    def encode(self, *, inputs: Tensor, input_len: Tensor | None = None) -> Tensor:
        return self(inputs=inputs, input_len=input_len)[1]

    def decode(self, *, indices: Tensor, input_len: Tensor | None = None) -> Tensor:
        digits = indices[0][:, None] // self.dim_base_index % self.num_levels
        half = self.num_levels // 2
        return masked((digits - half) / half, input_len)


class EuclideanCodebook(Module):
    def __init__(self, codebook_size: int, codebook_dim: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        codes = torch.randn(codebook_size, codebook_dim)
        self.register_buffer("initialized", torch.zeros(1))
        self.register_buffer("cluster_size", torch.zeros(codebook_size))
        self.register_buffer("codes", codes)
        self.register_buffer("codes_avg", codes.clone())

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        rows = x.movedim(1, -1).flatten(0, 1)
        distances = rows.square().sum(-1, keepdim=True) - 2 * rows @ self.codes.T + self.codes.square().sum(-1)
        return masked(distances.argmin(-1).view(x.shape[0], x.shape[2]), lengths)

    def decode(self, indices: Tensor, lengths: Tensor) -> Tensor:
        return masked(self.codes[indices].movedim(-1, 1), lengths)

    @torch.no_grad()
    def learn(self, x: Tensor, lengths: Tensor) -> None:
        rows, indices = x.movedim(1, -1).flatten(0, 1), self.encode(x, torch.full_like(lengths, x.shape[2]))
        chosen = F.one_hot(indices.flatten(), len(self.codes)).to(rows)
        self.cluster_size.mul_(self.decay).add_(chosen.sum(0), alpha=1 - self.decay)
        self.codes_avg.mul_(self.decay).add_(chosen.T @ rows, alpha=1 - self.decay)
        total = self.cluster_size.sum()
        share = (self.cluster_size + 1e-5) / (total + len(self.codes) * 1e-5)
        self.codes.copy_(self.codes_avg / (share * total)[:, None])

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if not self.initialized:
            rows = x.movedim(1, -1).flatten(0, 1)
            self.codes.copy_(rows[torch.arange(len(self.codes)) % len(rows)])
            self.initialized.fill_(1)
        indices = self.encode(x, lengths)
        quantized = self.decode(indices, lengths)
        if self.training:
            self.learn(x, lengths)
        return quantized, indices


class ResidualVectorQuantizer(Module):
    with_loss = True

    def __init__(
        self, num_codebooks: int, codebook_size: int = 1024, codebook_dim: int = 128, decay: float = 0.99
    ) -> None:
        super().__init__()
        self.codebook_dim = codebook_dim
        self.codebooks = nn.ModuleList(
            EuclideanCodebook(codebook_size, codebook_dim, decay) for _ in range(num_codebooks)
        )

    def forward(self, *, inputs: Tensor, input_len: Tensor) -> tuple[Tensor, Tensor, Any]:
        loss: Any = 0.0
        residual, total, found = inputs, torch.zeros_like(inputs), []
        for codebook in self.codebooks:
            quantized, indices = codebook(residual, input_len)
            constant = quantized.detach()
            if self.training:
                error = masked((residual - constant).square(), input_len)
                loss = loss + (error.mean(1).sum(1) / input_len.clamp(min=1)).mean()
            residual = residual - constant
            total = total + (residual + (quantized - residual).detach() if self.training else quantized)
            found.append(indices)
        return total, torch.stack(found), loss

    def encode(self, *, inputs: Tensor, input_len: Tensor) -> Tensor:
        found = []
        for codebook in self.codebooks:
            found.append(codebook.encode(inputs, input_len))
            inputs = inputs - codebook.decode(found[-1], input_len)
        return torch.stack(found)

    def decode(self, *, indices: Tensor, input_len: Tensor) -> Tensor:
        pairs = zip(self.codebooks, indices, strict=True)
        return sum((codebook.decode(own, input_len) for codebook, own in pairs), torch.zeros(()))


class _Groups(Module):
    """Groups of channels, each with a quantizer, in the list that `_parts` returns."""

    def _parts(self) -> nn.ModuleList:
        raise NotImplementedError

    def _groupwise(self, name: str, values: Tensor, axis: int, length: Tensor) -> list[Any]:
        parts = self._parts()
        chunks = zip(parts, values.chunk(len(parts), dim=axis), strict=True)
        argument = "indices" if name == "decode" else "inputs"
        return [getattr(part, name)(**{argument: own, "input_len": length}) for part, own in chunks]

    def forward(self, *, inputs: Tensor, input_len: Tensor) -> tuple[Any, ...]:
        values, indices, *losses = zip(*self._groupwise("forward", inputs, 1, input_len), strict=True)
        return torch.cat(values, 1), torch.cat(indices), *(sum(loss) for loss in losses)

    def encode(self, *, inputs: Tensor, input_len: Tensor) -> Tensor:
        return torch.cat(self._groupwise("encode", inputs, 1, input_len))

    def decode(self, *, indices: Tensor, input_len: Tensor) -> Tensor:
        return torch.cat(self._groupwise("decode", indices, 0, input_len), 1)


class GroupFiniteScalarQuantizer(_Groups):
    def __init__(self, num_groups: int, num_levels_per_group: list[int], **options: Any) -> None:
        super().__init__()
        self.num_groups, self.codebook_dim_per_group = num_groups, len(num_levels_per_group)
        self.fsqs = nn.ModuleList(
            FiniteScalarQuantizer(num_levels_per_group, **options) for _ in range(num_groups)
        )

    def _parts(self) -> nn.ModuleList:
        return self.fsqs

    @property
    def codebook_dim(self) -> int:
        return self.codebook_dim_per_group * self.num_groups

    @property
    def codebook_size_per_group(self) -> int:
        return self.fsqs[0].codebook_size

    @property
    def codebook_size(self) -> int:
        return self.codebook_size_per_group**self.num_groups


class GroupResidualVectorQuantizer(_Groups):
    with_loss = True

    def __init__(self, num_codebooks: int, num_groups: int, codebook_dim: int, **options: Any) -> None:
        super().__init__()
        self.num_codebooks, self.num_groups, self.codebook_dim = num_codebooks, num_groups, codebook_dim
        self.rvqs = nn.ModuleList(
            ResidualVectorQuantizer(
                self.num_codebooks_per_group, codebook_dim=codebook_dim // num_groups, **options
            )
            for _ in range(num_groups)
        )

    def _parts(self) -> nn.ModuleList:
        return self.rvqs

    @property
    def num_codebooks_per_group(self) -> int:
        return self.num_codebooks // self.num_groups

    @property
    def codebook_dim_per_group(self) -> int:
        return self.codebook_dim // self.num_groups


class AudioCodecModel(nn.Module):
    """Audio [B, samples] and lengths [B] → frames of 8 samples, quantized, and back."""

    def __init__(self, quantizer: Module, channels: int) -> None:
        super().__init__()
        self.audio_encoder = nn.Conv1d(1, channels, 8, stride=8)
        self.vector_quantizer = quantizer
        self.vector_quantizer_has_commit_loss = "commit_loss" in quantizer.output_types
        self.audio_decoder = nn.ConvTranspose1d(channels, 1, 8, stride=8)

    def frames(self, audio: Tensor, audio_len: Tensor) -> tuple[Tensor, Tensor]:
        return self.audio_encoder(audio[:, None]), audio_len // 8

    def forward(self, audio: Tensor, audio_len: Tensor) -> tuple[Tensor, Any]:
        """As `_process_batch`: the new audio and the commitment loss."""
        encoded, encoded_len = self.frames(audio, audio_len)
        loss: Any = 0.0
        if self.vector_quantizer_has_commit_loss:
            encoded, _, loss = self.vector_quantizer(inputs=encoded, input_len=encoded_len)
        else:
            encoded, _ = self.vector_quantizer(inputs=encoded, input_len=encoded_len)
        return self.audio_decoder(encoded)[:, 0], loss

    def encode(self, audio: Tensor, audio_len: Tensor) -> tuple[Tensor, Tensor]:
        encoded, encoded_len = self.frames(audio, audio_len)
        tokens = self.vector_quantizer.encode(inputs=encoded, input_len=encoded_len)
        return tokens.transpose(0, 1), encoded_len

    def decode(self, tokens: Tensor, tokens_len: Tensor) -> Tensor:
        encoded = self.vector_quantizer.decode(indices=tokens.transpose(0, 1), input_len=tokens_len)
        return self.audio_decoder(encoded)[:, 0]
