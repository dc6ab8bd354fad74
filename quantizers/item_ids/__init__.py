"""Semantic IDs: items as tuples of codes, coarse to fine, for generative retrieval and recommendation.

`semantic_ids` (`building.py`) fits a quantizer to embeddings and returns a `SemanticIDs` (`table.py`).
`collisions/` has the policies for items with the same codes, one per file; `placing.py` finds free IDs, and
`levels.py` states the search for the next code of an ID.
"""

from quantizers.item_ids.building import semantic_ids
from quantizers.item_ids.table import SemanticIDs

__all__ = ["SemanticIDs", "semantic_ids"]
