"""Put a quantizer into an existing model with `plug_in`, and take it out again with `unplug`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.building import build
from quantizers.adapters.choosing import choose_contract, warn_of_overrides
from quantizers.adapters.devices import builds_on_meta, device_of, dtype_of, is_on_meta, materialize, move_to
from quantizers.adapters.model_config import write_config
from quantizers.adapters.paths import (
    check_not_compiled,
    distinct_paths,
    module_at,
    plugged,
    replace_module,
    resolve_paths,
)
from quantizers.adapters.reading import read_spec
from quantizers.adapters.recognition import LISTED, contract_of
from quantizers.adapters.torch_package import allow_package_import
from quantizers.adapters.training import set_trainable
from quantizers.core.base import Quantizer
from quantizers.core.registry import Builder


def plug_in(
    model: nn.Module,
    quantizer: str | Builder | Quantizer,
    /,
    *,
    at: str | Sequence[str] | None = None,
    contract: str | None = None,
    keep_codebook: bool = False,
    trainable: bool | None = None,
    **options: Any,
) -> nn.Module:
    """Replace the quantizer of a model by one of this library, which answers as the model expects.

        plug_in(vq_model, "simvq")                    # the quantizer of a diffusers VQModel
        plug_in(dac_model, "fsq", levels=(8, 5, 5))   # each of DAC's stages
        plug_in(var_vqvae, "bsq")                     # all of VAR's scales
        plug_in(model, "residual", quantizer="simvq", num_quantizers=4)
        plug_in(model, "ema_vq", at="bottleneck.vq", contract="taming")

    Width, codebook size, number of stages and layout are read from the quantizer that is replaced. If the codes
    have other channels than the model (FSQ), one learned projection leads in and another one leads out. The model
    gets the loss of the new quantizer, with its weights, instead of its own loss. A quantizer that was plugged in
    before is discarded; `unplug` always puts back the model's own.

    **Make optimizers after `plug_in`**, and after `unplug`: an optimizer that was made before holds the parameters
    that are gone and none of the new ones. The same is true of everything else that collects parameters, such as
    DistributedDataParallel.

    **A wrong swap is an error.** The model's quantizer is first run on a small random input, in evaluation and
    without gradients, and left as it was; what it returns must have the nesting, shapes, dtypes and, with the same
    codes, the values that the contract gives. A class that other repositories have changed under the same name is
    thus refused, and nothing is changed in the model.

    The new quantizer goes to the device of the quantizer that it replaces, or to that of the model if the replaced
    one has no values (`meta`). If the whole model is on `meta`, a quantizer that is built from a name goes there
    too, and a quantizer that you pass stays where it is.

    Args:
        model: changed in place. If it is itself a known quantizer, the adapter is returned. Its configuration
            records what is plugged in, for `quantizers.adapters.from_pretrained`; a configuration of transformers
            is copied first, so that other models can be built from the old one. Pass the model that you will save.
            If you pass only a submodule, save with `quantizers.adapters.save_pretrained`.
        quantizer: a name, class or partial as for `quantizers.create`, or a quantizer of the right sizes.
        at: the path of the quantizer in the model, or several. Default: the only quantizer of a known contract.
            Modules that act as one quantizer, such as Mimi's two halves, are found together; `at` can name the
            module that contains them.
        contract: how the model calls its quantizer, one of `available_contracts()`. Default: found by the name of
            the class, its attributes and what it returns. Needed for a module of another class that is called in
            the same way, and for one that cannot be run; a contract that you name is not checked. If sizes cannot
            be read, pass `dim` and `codebook_size`, for residual contracts `num_quantizers`, for those of scales
            `scales`, and `channel_dim` if it is not the contract's; or pass a quantizer that is already built.
        keep_codebook: copy the trained codes, so that the model gives the results that it gave, up to the rounding
            of its own search, and train with the weights of its own losses. If the model is being built on `meta`,
            for example inside its own `from_pretrained`, there are no codes yet: the checkpoint must contain the
            new quantizer's.
        trainable: whether the new quantizer trains. Default: it does, unless the model is frozen where it is put;
            then it is frozen, too, and a warning says so.
        options: options of the quantizer.

    Returns: the model.

    Raises: ValueError for a model without a known quantizer, for several quantizers and no `at`, for a path that
        does not exist, a quantizer that is called in another way than the contract says, widths that do not match,
        or a codebook that cannot be kept.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from quantizers import plug_in
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Identity())
        >>> model = plug_in(model, "simvq", at="1", contract="taming", dim=4, codebook_size=8)
        >>> quantized, loss, (_, _, indices) = model(torch.randn(2, 3, 16, 16))
        >>> quantized.shape, indices.shape
        (torch.Size([2, 4, 16, 16]), torch.Size([512]))
    """
    paths = distinct_paths(model, resolve_paths(model, at, contract))
    if isinstance(quantizer, Quantizer) and len(paths) > 1:
        raise ValueError(
            f"one quantizer cannot replace {len(paths)}, those at {paths}: pass a name, or plug in one by one"
        )
    # All adapters are built before the first is put in, so that an error leaves the model as it was.
    adapters = [_adapted(model, path, quantizer, contract, keep_codebook, options) for path in paths]
    set_trainable(model, [(path, *pair) for path, pair in zip(paths, adapters, strict=True)], trainable)
    for old, adapter in adapters:
        model = replace_module(model, old, adapter)
    write_config(model)
    allow_package_import(model)
    return model


def unplug(model: nn.Module, at: str | Sequence[str] | None = None) -> nn.Module:
    """Put back the quantizers that `plug_in` replaced, unchanged, on the model's device and in its dtype and mode.

    Args:
        at: the paths of the quantizers to take out; default: all.

    Returns: the model.

    Raises: ValueError if nothing is plugged in.

    Example:
        >>> from torch import nn
        >>> from quantizers import plug_in, unplug
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Identity())
        >>> model = plug_in(model, "vq", at="1", contract="taming", dim=4, codebook_size=8)
        >>> unplug(model)[1]
        Identity()
    """
    adapters = plugged(model)
    if at is not None:
        adapters = {path: _adapter_at(model, path) for path in resolve_paths(model, at)}
    if not adapters:
        raise ValueError(f"model is {type(model).__name__}, which has no quantizer plugged in")
    for path in adapters:
        check_not_compiled(path)
    for adapter in adapters.values():
        original = materialize(adapter.original, device_of(adapter, model))
        model = replace_module(model, adapter, original.to(adapter.dtype).train(adapter.training))
    write_config(model)
    return model


def take_codebook(model: nn.Module, at: str | None = None) -> Tensor:
    """A copy of the trained codes of a model's quantizer: [K, code_dim], or [stages, K, code_dim].

    If a quantizer of this library is plugged in, it is the codebook of that one. If several modules act as one
    quantizer, it has the stages of all of them.

    Args:
        at: the path of the quantizer, see `plug_in`.

    Raises: ValueError as `plug_in`, and for a quantizer without a table of codes.

    Example:
        >>> from torch import nn
        >>> from quantizers import plug_in, take_codebook
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Identity())
        >>> model = plug_in(model, "vq", at="1", contract="taming", dim=4, codebook_size=8)
        >>> take_codebook(model).shape
        torch.Size([8, 4])
    """
    codebooks = [_codebook_at(model, path) for path in resolve_paths(model, at)]
    shapes = [tuple(codebook.shape) for codebook in codebooks]
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(f"the codebooks differ in shape, {shapes}: pass the path of one of them as at=")
    return codebooks[0] if len(codebooks) == 1 else torch.cat(codebooks)


def _adapted(
    model: nn.Module,
    path: str,
    quantizer: str | Builder | Quantizer,
    contract_name: str | None,
    keep_codebook: bool,
    options: Mapping[str, Any],
) -> tuple[nn.Module, Adapter]:
    """The module at a path, and an adapter to replace it."""
    check_not_compiled(path)
    module = module_at(model, path)
    contract = choose_contract(path, module, contract_name)
    if keep_codebook and isinstance(module, Adapter):
        raise ValueError(
            "keep_codebook copies the codes of the model's own quantizer, but the quantizer at "
            f"{path!r} was plugged in: unplug it first, or pass its codes, take_codebook(model), to the new one's "
            "set_codebook"
        )
    original = module.original if isinstance(module, Adapter) else module
    spec, options = read_spec(path, original, contract, quantizer, options)
    built = build(spec, quantizer, options, keep_codebook)
    contract.check_quantizer(model, built)
    if contract_name is not None:
        warn_of_overrides(path, original, contract)
    if keep_codebook:
        _copy_codebook(path, contract, original, built)
    adapter = move_to(
        contract(built, original),
        device_of(module, model),
        dtype_of(module),
        already_built=isinstance(quantizer, Quantizer),
    )
    return module, adapter.train(module.training)


def _copy_codebook(path: str, contract: type[Adapter], original: nn.Module, quantizer: Quantizer) -> None:
    if builds_on_meta():  # the codes will come from a checkpoint
        contract.prepare_for_checkpoint(original, quantizer)
        return
    if is_on_meta(original):
        raise ValueError(
            f"keep_codebook copies the codes of {type(original).__name__} at {path!r}, which is on meta, without "
            "values: load the model with its own weights first"
        )
    try:
        contract.copy_codebook(original, quantizer)
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"at {path!r} is {type(original).__name__}, whose codes contract {contract.contract!r} cannot read "
            f"({error})"
        ) from error


def _codebook_at(model: nn.Module, path: str) -> Tensor:
    module = module_at(model, path)
    contract = contract_of(module)
    if isinstance(module, Adapter):
        return module.quantizer.codebook.detach().clone()
    if contract is None:
        raise ValueError(f"at {path!r} is {type(module).__name__}, which follows no known contract; {LISTED}")
    return contract.trained_codebook(module).detach().clone()


def _adapter_at(model: nn.Module, path: str) -> Adapter:
    module = module_at(model, path)
    if not isinstance(module, Adapter):
        raise ValueError(f"at {path!r} is {type(module).__name__}, which was not plugged in")
    return module
