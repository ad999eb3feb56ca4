"""Tests: they mirror the tree of :mod:`autopush`."""

from pathlib import Path

TREE = Path(__file__).parents[2]
"""The checkout."""
