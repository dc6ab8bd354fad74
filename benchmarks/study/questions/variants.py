"""The variants that the questions are about, and the values of K and D."""

SIZES = (256, 1024, 4096, 16384)
FEW, MANY = SIZES[0], SIZES[-1]
DIMS = (8, 32, 128)

VQ, VQ_REPLACED, ROTATION = "vq", "vq:replace=dead", "vq:gradient=rotation"
LOW_DIM, LOW_DIM_COSINE = "vq:code_dim=8", "vq:code_dim=8:distance=cosine"
EMA, EMA_REPLACED, SHORT_EMA = "ema_vq", "ema_vq:replace=dead", "ema_vq:decay=0.8"
SIMVQ, LEARNED_BASIS = "simvq", "simvq:learned_basis=True"
DIAGONAL, DIAGONAL_LEARNED_BASIS = "simvq:transform=diagonal", "simvq:transform=diagonal:learned_basis=True"
FSQ, GUMBEL = "fsq", "gumbel"
