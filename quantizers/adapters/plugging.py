"""One line that puts a quantizer into a model that exists, and one that takes it out again."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter, Place
from quantizers.adapters.building import build
from quantizers.adapters.finding import check_not_compiled, distinct, module_at, paths_of, plugged, replaced
from quantizers.adapters.notes import write_notes
from quantizers.adapters.packages import let_packages_import
from quantizers.adapters.placement import builds_on_meta, dtype_of, home_of, lacks_values, moved, with_values
from quantizers.adapters.recognition import contract_named, contract_of, contracts
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
    **options: Any,
) -> nn.Module:
    """Replace the quantizer of a model by one of ours, which answers as the model expects.

        plug_in(vq_model, "simvq")                    # the quantizer of a diffusers VQModel
        plug_in(dac_model, "fsq", levels=(8, 5, 5))   # each of DAC's stages
        plug_in(model, "residual", quantizer="simvq", num_quantizers=4)
        plug_in(model, "ema_vq", at="bottleneck.vq", contract="taming")

    Width, codebook size, number of stages and layout are read from the quantizer that stands there. Where codes
    have other channels than the model (FSQ), a learned projection leads in and another out. The loss that the
    model gets is ours, weighted by our weights, in the place of its own. A quantizer that was plugged in before
    gives way; what stood there first is what `unplug` puts back.

    **Make optimizers after it**, and after `unplug`: one that was made before holds the parameters that are gone,
    and none of the new ones. So does what collects parameters in another way, as DistributedDataParallel.

    The new quantizer goes to the device of what stood there, or of the model where that has no values (`meta`). In
    a model that is on `meta` as a whole, one that is built from a name is there too; one that is given stays
    where it is.

    Args:
        model: changed in place. Where it is itself a known quantizer, the adapter is returned. Its configuration
            notes what is plugged in, for `quantizers.adapters.from_pretrained`; one of transformers is a copy
            afterwards, so that other models can be built from the one that this model was built from. Give the
            model that will be saved; where a part of it was given, save with
            `quantizers.adapters.save_pretrained`.
        quantizer: a name, class or partial as for `quantizers.create`, or a quantizer that fits.
        at: path of the quantizer in the model, or several; default the only one that is known. Those that are one
            quantizer to the model, as Mimi's halves, are found together, and named by the module that holds them.
        contract: how the model calls it, one of `contracts()`; default by its class. For a module of another class
            that keeps a contract; where its sizes cannot be read, give `dim` and `codebook_size`, with stages
            `num_quantizers`, and `channel_dim` where it is not the contract's; or a quantizer that is built.
        keep_codebook: carry the codes over, so that the model gives what it gave, up to the rounding of its own
            search, and is trained with the weights of its own losses. Where the model is built on `meta`, as
            within its own `from_pretrained`, there are no codes yet: the checkpoint has to hold those of ours.
        options: of the quantizer.

    Returns: the model.

    Raises: ValueError, in a sentence, for a model without a known quantizer, with several and no `at`, for a path
        that is not there, a contract that does not fit, widths that cannot be joined, a codebook that cannot be
        kept.
    """
    paths = distinct(model, paths_of(model, at, contract))
    if isinstance(quantizer, Quantizer) and len(paths) > 1:
        raise ValueError(
            f"one quantizer cannot stand at {len(paths)} places, {paths}: give a name, or plug in each"
        )
    # All of them are built before the first is put in: an error leaves the model as it was.
    adapters = [_adapted(model, path, quantizer, contract, keep_codebook, options) for path in paths]
    for standing, adapter in adapters:
        model = replaced(model, standing, adapter)
    write_notes(model)
    let_packages_import(model)
    return model


def unplug(model: nn.Module, at: str | Sequence[str] | None = None) -> nn.Module:
    """Put back what stood in the model before `plug_in`, as it was then, in the model's device, dtype and mode.

    Args: at: paths of the quantizers to take out; default all.

    Returns: the model.

    Raises: ValueError where nothing is plugged in.
    """
    adapters = plugged(model)
    if at is not None:
        adapters = {path: _adapter_at(model, path) for path in paths_of(model, at)}
    if not adapters:
        raise ValueError(f"model is {type(model).__name__}, which has no quantizer plugged in")
    for path in adapters:
        check_not_compiled(path)
    for adapter in adapters.values():
        original = with_values(adapter.original, home_of(adapter, model)).to(adapter.dtype).train(adapter.training)
        model = replaced(model, adapter, original)
    write_notes(model)
    return model


def take_codebook(model: nn.Module, at: str | None = None) -> Tensor:
    """A copy of the trained codes of a model's quantizer, [K, code_dim], or [stages, K, code_dim].

    Args: as of `plug_in`; of a quantizer of ours that is plugged in, its codebook. Of several that are one
    quantizer to the model, the stages of all.

    Raises: ValueError as `plug_in`, and for a quantizer without a table of codes.
    """
    books = [_codes_at(model, path) for path in paths_of(model, at)]
    if len({book.shape[1:] for book in books}) > 1:
        raise ValueError(f"the codebooks differ in shape, {[tuple(book.shape) for book in books]}: say at= which")
    return books[0] if len(books) == 1 else torch.cat(books)


def _adapted(
    model: nn.Module,
    path: str,
    quantizer: str | Builder | Quantizer,
    contract: str | None,
    keep: bool,
    options: Mapping[str, Any],
) -> tuple[nn.Module, Adapter]:
    """What stands at a path, and an adapter to take its place."""
    check_not_compiled(path)
    standing = module_at(model, path)
    kept = contract_of(standing) if contract is None else contract_named(contract)
    if kept is None:
        raise ValueError(
            f"at {path!r} is {type(standing).__name__}, which keeps no known contract; say contract=, one of "
            f"{', '.join(contracts())}"
        )
    if keep and isinstance(standing, Adapter):
        raise ValueError(
            f"keep_codebook carries over the codes of the model's own quantizer, and at {path!r} is one that was "
            "plugged in: unplug it first, or set its codes, take_codebook(model), by the new one's set_codebook"
        )
    original = standing.original if isinstance(standing, Adapter) else standing
    place, options = _place(path, original, kept, quantizer, options)
    built = build(place, quantizer, options, keep)
    kept.check_model(model, built)
    if keep:
        _keep(path, kept, original, built)
    home, given = home_of(standing, model), isinstance(quantizer, Quantizer)
    adapter = moved(kept(built, original), home, dtype_of(standing), given=given)
    return standing, adapter.train(standing.training)


def _keep(path: str, contract: type[Adapter], original: nn.Module, quantizer: Quantizer) -> None:
    if builds_on_meta():  # a checkpoint is to bring the codes
        contract.keep_structure(original, quantizer)
        return
    if lacks_values(original):
        raise ValueError(
            f"keep_codebook carries over the codes of {type(original).__name__} at {path!r}, which is on meta and "
            "has no values: load the model with its own weights first"
        )
    try:
        contract.keep(original, quantizer)
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"at {path!r} is {type(original).__name__}, of which contract {contract.contract!r} cannot read the "
            f"codes ({error})"
        ) from error


def _place(
    path: str,
    original: nn.Module,
    contract: type[Adapter],
    quantizer: str | Builder | Quantizer,
    options: Mapping[str, Any],
) -> tuple[Place, dict[str, Any]]:
    """What a module asks for, and the options that are not about that."""
    others = {name: value for name, value in options.items() if name not in ("dim", "channel_dim")}
    try:
        place = contract.read(original)
    except (AttributeError, TypeError) as error:
        if isinstance(quantizer, Quantizer):  # which tells its own sizes
            stages = quantizer.num_codebooks if contract.has_stages else None
            return Place(quantizer.dim, quantizer.codebook_size, quantizer.channel_dim, stages), others
        needed = ("dim", "codebook_size", "num_quantizers")[: 3 if contract.has_stages else 2]
        if not options.keys() >= set(needed):
            raise ValueError(
                f"at {path!r} is {type(original).__name__}, from which contract {contract.contract!r} cannot read "
                f"its sizes ({error}); say {', '.join(f'{name}=' for name in needed)}"
            ) from error
        stages = options["num_quantizers"] if contract.has_stages else None
        axis = options.get("channel_dim", contract.channel_dim)
        return Place(options["dim"], options["codebook_size"], axis, stages), others
    for name in ("dim", "channel_dim"):
        own = getattr(place, name)
        if options.get(name, own) != own:
            raise ValueError(f"{name} is {options[name]}, and {type(original).__name__} at {path!r} has {own}")
    return place, others


def _codes_at(model: nn.Module, path: str) -> Tensor:
    module = module_at(model, path)
    kept = contract_of(module)
    if isinstance(module, Adapter):
        return module.quantizer.codebook.detach().clone()
    if kept is None:
        raise ValueError(f"at {path!r} is {type(module).__name__}, which is none of {', '.join(contracts())}")
    return kept.trained_codebook(module).detach().clone()


def _adapter_at(model: nn.Module, path: str) -> Adapter:
    module = module_at(model, path)
    if not isinstance(module, Adapter):
        raise ValueError(f"at {path!r} is {type(module).__name__}, which was not plugged in")
    return module
