"""What a network remembers about the text that it was trained on."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darts_cli.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInfo:
    """What a checkpoint keeps, so that other text can be read with the same words."""

    vocabulary: tuple[str, ...]
    """The words, in the order of the logits."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TextInfo":
        """The inverse of `dataclasses.asdict` and JSON, which turn tuples into lists.

        Raises:
            CheckpointError: if there is no vocabulary, or one of other things than words.
        """
        words = values.get("vocabulary")
        if (
            not words
            or not isinstance(words, list | tuple)
            or not all(isinstance(word, str) for word in words)
        ):
            raise CheckpointError(
                f"facts.vocabulary: found {reprlib.repr(words)}, expected a list of words"
            )
        if len(set(words)) < len(words):
            raise CheckpointError("facts.vocabulary: found a word twice, expected each once")
        return cls(vocabulary=tuple(words))
