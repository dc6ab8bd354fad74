"""What to write instead of an option that does not exist."""

import difflib
from collections.abc import Callable, Collection, Sequence

Names = Collection[str]

SYNONYMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("num_embeddings", "n_e", "n_embed", "num_codes", "n_codes", "num_tokens", "vocab_size"),
        ("codebook_size",),
    ),
    **dict.fromkeys(("embedding_dim", "e_dim", "embed_dim"), ("dim", "code_dim")),
    "codebook_dim": ("code_dim",),
    **dict.fromkeys(("in_channels", "input_dim", "feature_dim", "latent_dim", "z_channels"), ("dim",)),
    **dict.fromkeys(
        ("beta", "commitment", "commitment_cost", "commitment_loss_weight", "commit_loss_weight"),
        ("commitment_weight",),
    ),
    "codebook_loss_weight": ("codebook_weight",),
    "entropy_loss_weight": ("entropy_weight",),
    "diversity_gamma": ("diversity",),
    "gamma": ("decay", "diversity"),
    "ema_decay": ("decay",),
    "eps": ("epsilon",),
    "sync_codebook": ("process_group",),
    **dict.fromkeys(("tau", "temp", "gumbel_temperature"), ("temperature",)),
    **dict.fromkeys(("kl_coef", "kld_scale", "kl_div_scale"), ("kl_weight",)),
    "straight_through": ("hard",),
    **dict.fromkeys(("n_codebooks", "num_codebooks"), ("num_quantizers", "num_groups", "num_heads")),
    **dict.fromkeys(("n_q", "n_quantizers", "num_stages"), ("num_quantizers",)),
    **dict.fromkeys(("groups", "n_groups"), ("num_groups",)),
    **dict.fromkeys(("heads", "n_heads"), ("num_heads",)),
    **dict.fromkeys(("fsq_levels", "num_levels"), ("levels",)),
    **dict.fromkeys(("quantize_dropout", "quantizer_dropout"), ("dropout",)),
    "shared_codebook": ("shared",),
}
"""Words of other libraries, and the options here that may be meant."""

LEARNED = frozenset({"codebook_weight", "epsilon", "logits"})
"""Every quantizer with a learned codebook takes at least one of these options."""


def _has(option: str) -> Callable[[Names], bool]:
    return lambda names: option in names


def _is_learned(names: Names) -> bool:
    return not LEARNED.isdisjoint(names)


def _has_table(names: Names) -> bool:
    """Whether single codes can be replaced: not those of SimVQ, which a transform moves together."""
    return "logits" in names or ("regularizers" in names and "learned_basis" not in names)


def _takes_losses_on_codes(names: Names) -> bool:
    """Moving averages are moved by no loss."""
    return "regularizers" in names and "decay" not in names


def _has_no_decay(names: Names) -> bool:
    return "decay" not in names


ADVICE: dict[str, tuple[Callable[[Names], bool], str]] = {
    **dict.fromkeys(("rotation_trick", "use_rotation_trick"), (_has("gradient"), 'pass gradient="rotation"')),
    **dict.fromkeys(
        ("use_cosine_sim", "use_l2_norm", "l2_norm", "codebook_l2_norm"),
        (_has("distance"), 'pass distance="cosine"'),
    ),
    **dict.fromkeys(
        ("accept_image_fmap", "channel_first"),
        (_has("channel_dim"), "pass channel_dim=1 for x of shape [B, C, H, W]"),
    ),
    "channel_last": (
        _has("channel_dim"),
        "channel_dim says which axis holds the channels: -1, or 1 for [B, C, H, W]",
    ),
    **dict.fromkeys(
        ("kmeans_init", "kmeans_iters"),
        (_is_learned, "call quantizers.warm_start(model, batches) before training"),
    ),
    **dict.fromkeys(
        ("threshold_ema_dead_code", "dead_code_threshold", "restart_unused_codes"),
        (_has_table, "call quantizers.DeadCodeReplacement(model, optimizer).step() after each optimizer step"),
    ),
    "orthogonal_reg_weight": (
        _takes_losses_on_codes,
        "pass regularizers=[quantizers.regularizers.Orthogonality(weight)]",
    ),
    "entropy_loss_weight": (_has("regularizers"), "pass regularizers=[quantizers.regularizers.Entropy(weight)]"),
    **dict.fromkeys(
        ("decay", "ema_decay"), (_has_no_decay, "'ema_vq' takes decay: its codes are moving averages")
    ),
}
"""Words of other libraries for what is done differently here, with the quantizers that the advice fits."""


def did_you_mean(near: Sequence[str]) -> str:
    """`did you mean 'vq' or 'ema_vq'? ` for names that are near an unknown one, and nothing for none."""
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""


def hint_for(option: str, names: Names) -> str:
    """What may be meant by an option that does not exist, for a sentence that ends in its name.

    Args:
        option: its name.
        names: the options that exist.

    Returns: `, did you mean 'codebook_size'?`, `: call … before training.`, or `.` if nothing is near.
    """
    meant = [name for name in SYNONYMS.get(option, ()) if name in names]
    if not meant and option in ADVICE:
        applies, advice = ADVICE[option]
        return f": {advice}." if applies(names) else "."
    near = meant or difflib.get_close_matches(option, names, n=3)
    return f", did you mean {' or '.join(map(repr, near))}?" if near else "."


def meant_by(missing: str, given: Names) -> str | None:
    """Which of the options that somebody gave may be meant for a missing one; None if there is none."""
    words = [name for name in given if missing in SYNONYMS.get(name, ())]
    near = difflib.get_close_matches(missing, given, n=1, cutoff=0.8)
    return next(iter([*near, *words]), None)
