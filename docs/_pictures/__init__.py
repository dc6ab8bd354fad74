"""Pictures of what each quantizer does to points of the plane, for the pages in docs/methods.

    python -m docs._pictures            # all registered methods
    python -m docs._pictures vq simvq   # these alone

Every picture is computed from the quantizer itself: `create`, `encode`, `decode`, `forward` and autograd, with the
settings in `settings.py`. The pictures are committed, so building the documentation draws none.
"""
