"""Check that a module is called the way a contract says, by running it, before `plug_in` replaces it.

- `contract`: runs the original and an adapter on the same vectors, and says where they differ.
- `results`: compares two results in nesting, shapes, dtypes and values.
- `preserving`: leaves the original as it was.
"""
