"""Facts about the text that a network was trained on; stands on no other module here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darts_cli.errors import CheckpointError
from darts_cli.schema import Rule, check, is_list_of, is_text

_RULES = {
    "facts.vocabulary": Rule(
        "a list of words", lambda value: bool(value) and is_list_of(is_text)(value)
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInfo:
    """Facts that a checkpoint keeps, so that other text can be read with the same words."""

    vocabulary: tuple[str, ...]
    """Words in the order of the logits."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TextInfo":
        """Build from what `dataclasses.asdict` and JSON made of it: a list where the tuple was.

        Raises:
            CheckpointError: if there is no vocabulary, or it is not a list of different words.
        """
        check({"facts": values}, _RULES, CheckpointError)
        words = values["vocabulary"]
        if len(set(words)) < len(words):
            raise CheckpointError("facts.vocabulary: found a word twice, expected each once")
        return cls(vocabulary=tuple(words))
