"""The constants that more than one language needs, each written once.

Python imports them, and Triton's kernels take them as `tl.constexpr(LARGEST_RATIO)`. The C++ compiler gets each
as a macro, LARGEST_RATIO as QUANTIZERS_LARGEST_RATIO; see compiled/definitions.py. The equations are those of the
README.md in the named folder.
"""

# Rounding: nearest/, (2), (3), (5) and (6).
ROUNDOFF_FLOAT32 = 2.0**-24  # unit roundoff u of float32
ROUNDOFF_FLOAT64 = 2.0**-53  # unit roundoff u of float64
EXTRA_ROUNDINGS = 8  # a sum of D products, its operands and its bound are rounded D + 8 times, to first order
SMALLEST_FLOAT32 = 2.0**-126  # largest error of a product below float32's normal range, flushed to zero or not
LARGEST_SCORE = 1e37  # beyond this a float32 score, or an intermediate sum, may overflow: nearest/, after (6)
CANDIDATE_MARGIN = 2.25  # of the bound E: 2E as in (7) plus an eighth, for the rounding of the threshold

# The rotation trick: rotation/.
LARGEST_RATIO = 100.0  # bound on the rotation's scale, 1/100 ≤ λ ≤ 100: (4)
OPPOSITE = 2.0**-26.5  # √u of float64: below this ‖x̂ + q̂‖ the reflection (5) is the more accurate

# How far FSQ's bound reaches past the outermost level, min(10⁻³ h, ¼): levels/, (1).
LEVEL_MARGIN = 1e-3  # relative to h: the paper's ε
LARGEST_LEVEL_MARGIN = 0.25  # absolute, in levels

# Gumbel noise: soft/, (1). Philox 4x32 with ten rounds is from Salmon et al.: Parallel Random Numbers: As Easy as
# 1, 2, 3, 2011.
PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS = 10
WORD_BITS = 32
UNIFORM_BITS = 23  # of a word, which make its uniform number: with one more for the ½, all of float32's 24
