"""Differentiable architecture search (Liu, Simonyan and Yang, ICLR 2019) at the command line."""

__version__ = "0.2.0"
