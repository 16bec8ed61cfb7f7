"""The search spaces. This table needs no torch, so that genotypes can be read without it."""

from darts_cli.space import SearchSpace
from darts_cli.spaces.cnn.primitives import CNN
from darts_cli.spaces.rnn.primitives import RNN

SPACES: dict[str, SearchSpace] = {"cnn": CNN, "rnn": RNN}
