"""Thin entry points of the dataset market: `python -m dataset`."""
