"""Kernels and chapter machinery of the Talking Heads companion."""

__version__ = "0.1.0"
