"""The spaces with their networks and data: what the commands hand to the engine."""

from darts_cli.engine.task import Domain
from darts_cli.spaces.cnn.task import ImageDomain
from darts_cli.spaces.rnn.task import TextDomain

DOMAINS: dict[str, Domain] = {"cnn": ImageDomain(), "rnn": TextDomain()}
