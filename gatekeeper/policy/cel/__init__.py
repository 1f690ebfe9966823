"""A subset of CEL, compiled to Python.

Source -> ``tokens`` -> ``syntax`` (tree) -> ``check`` (typed tree, by the tables of
``functions``) -> ``emit`` (Python function).
"""
