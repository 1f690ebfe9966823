"""Keeps lists and databases of networks fresh: fetch, parse strictly, compare, swap whole."""
