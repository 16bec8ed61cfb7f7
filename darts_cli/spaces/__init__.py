"""The search spaces. This table needs no torch, so that genotypes can be read without it."""

from darts_cli.space import SearchSpace
from darts_cli.spaces.cnn.primitives import CNN

SPACES: dict[str, SearchSpace] = {"cnn": CNN}
