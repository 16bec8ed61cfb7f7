"""What a network remembers about the text that it was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFacts:
    """What a checkpoint keeps, so that other text can be read with the same words."""

    vocabulary: tuple[str, ...]
    """The words, in the order of the logits."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TextFacts":
        """The inverse of `dataclasses.asdict` and JSON, which turn tuples into lists."""
        return cls(vocabulary=tuple(values["vocabulary"]))
