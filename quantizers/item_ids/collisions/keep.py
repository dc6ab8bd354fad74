"""Leave collisions as they are."""

from torch import Tensor

from quantizers.item_ids.assignment import Assignment


def keep(assignment: Assignment) -> Tensor:
    """The nearest codes of every item: items that look alike share an ID.

    For IDs that describe items and do not have to name them, such as features of a ranking model (Singh et al.
    2023, arXiv 2306.08121).
    """
    return assignment.codes
