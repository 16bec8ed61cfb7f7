"""Counted randomness: every random draw is a function of what it is for and where the run stands.

Nothing has to be saved to resume a run exactly, and masks are replayed by
seeding again (design, section 2).
"""

import hashlib

import torch

_SEED_BYTES = 8


def seed_for(seed: int, purpose: str, *position: int) -> int:
    """A 63-bit seed from the run's seed, a purpose and a position such as (epoch, step, rank).

    A hash rather than a sum, so that no two positions share their draws.
    """
    text = f"{seed}/{purpose}/" + "/".join(map(str, position))
    digest = hashlib.blake2b(text.encode(), digest_size=_SEED_BYTES).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(seed: int, purpose: str, *position: int) -> torch.Generator:
    """A generator on the CPU, so that the same numbers are drawn whatever the device."""
    return torch.Generator().manual_seed(seed_for(seed, purpose, *position))
