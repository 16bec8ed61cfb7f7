"""The spaces with their networks and data: what the commands hand to the engine."""

from darts_cli.engine.task import Task
from darts_cli.spaces.cnn.task import ImageTask
from darts_cli.spaces.rnn.task import TextTask

TASKS: dict[str, Task] = {"cnn": ImageTask(), "rnn": TextTask()}
