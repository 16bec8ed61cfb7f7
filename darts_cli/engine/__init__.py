"""The DARTS method, written once for every space: it cannot tell an image from a sentence."""
