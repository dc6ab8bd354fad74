"""Three methods that no test knows, to try whether a new quantizer passes the suite by registration alone.

`python -m pytest -p tests.trial_methods -k trial` registers them before the tests are collected and runs every
test that takes a registered name on them; tests/contract/test_new_methods.py runs a part of it.
"""

from tests.trial_methods import balanced, cosine, noisy

__all__ = ["balanced", "cosine", "noisy"]
