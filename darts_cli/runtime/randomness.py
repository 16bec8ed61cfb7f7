"""Counted randomness: every random draw is a function of seed, purpose and position of the run.

Exact resume needs no saved generator state, and a recomputed pass draws the same dropout masks
after seeding again.
"""

import hashlib

import torch

_SEED_BYTES = 8


def seed_for(seed: int, purpose: str, *position: int) -> int:
    """Return a 63-bit seed for a purpose at a position.

    Args:
        seed: The run's seed.
        purpose: What the numbers are drawn for, such as `dropout`.
        position: Where in the run they are drawn, such as (epoch, step, rank).
    """
    # A hash and not a sum, so that no two positions share their draws.
    text = f"{seed}/{purpose}/" + "/".join(map(str, position))
    digest = hashlib.blake2b(text.encode(), digest_size=_SEED_BYTES).digest()
    # torch takes seeds of 64 bits with a sign.
    return int.from_bytes(digest, "big") >> 1


def generator_for(seed: int, purpose: str, *position: int) -> torch.Generator:
    """Return a seeded generator, on the CPU so that all devices draw the same numbers.

    Args:
        seed: The run's seed.
        purpose: As in `seed_for`.
        position: As in `seed_for`.
    """
    return torch.Generator().manual_seed(seed_for(seed, purpose, *position))
