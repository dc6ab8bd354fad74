"""Pictures of what each quantizer does to points of the plane, for the pages in docs/methods.

    python -m docs._pictures            # all registered methods
    python -m docs._pictures vq simvq   # these alone

Every picture is computed from the quantizer itself: `create`, `initialize_from`, `encode`, `decode`, `forward` and
autograd, with the settings in `settings.py`. The pictures are committed, so building the documentation draws none.

All pictures have the same legend:

- cells: the vectors of a cell have the same index. Black dots are the codes, as `decode` returns them.
- grey dots: the data to which the quantizer was fitted, where it can be fitted.
- blue arrows: −∂L/∂z of a decoder's loss L = −g·q with g = (0.8, 0.6), in one forward in training. A
  straight-through gradient is g itself, so that all arrows are alike.
- orange arrows: −∂loss/∂z of the quantizer's own loss, per vector, enlarged by the factor in the legend.
- green arrows: how one training step (SGD on both losses, and moving averages) on the six green squares moves the
  codes; the longest has a fixed length.
- purple crosses: what the decoder gets in training, for the vectors for which that is not the code.
- for quantizers of maps: the 16 vectors of one 4 × 4 map; purple dots are their values after the first scale
  (large), the second and the third (small), and dotted lines lead from there to the vectors.
"""
