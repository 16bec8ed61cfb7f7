"""The spaces with the networks and data that belong to them: what the commands hand to the engine."""

from darts_cli.engine.task import Domain
from darts_cli.spaces.cnn.task import ImageDomain

DOMAINS: dict[str, Domain] = {"cnn": ImageDomain()}
