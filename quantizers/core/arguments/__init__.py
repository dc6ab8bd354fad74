"""The arguments of constructors: checks, options, and the record of each call."""
