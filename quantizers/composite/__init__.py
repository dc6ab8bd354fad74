"""Quantizers that are composed of other quantizers.

What is inside a composed quantizer are its `components`; the components of a residual quantizer are also its
`stages`. One rule names all counts: `num_<what>s` is the option that says how many of them a quantizer builds, and
`num_codebooks` is the result.

- `num_quantizers`: the stages of a residual quantizer ("residual", "residual_fsq", "qinco").
- `num_groups`: the groups of channels ("grouped", "opq").
- `num_heads`: the heads, groups of channels that are searched in one call ("multihead").
- `num_codebooks`: always the number of indices per vector, an attribute of every quantizer. A stage or group that
  is composed itself has several. As an argument of `forward` and `encode` it says how many codebooks to use, from
  the first.
"""
