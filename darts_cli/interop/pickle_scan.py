"""Scan of a pickle: which values reading it would make, without making any.

torch's own reader, with `weights_only`, runs no code from a file either. It can be made to take
hours or all memory, though, by keys that are tuples of tuples, or by sizes that nothing backs.
What it is given has passed here.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from darts_cli.errors import CheckpointError

# Bytes of one pickle; the paper's supernet with the state of its optimizer has a fifth of that.
MAX_BYTES = 2**22

_MAX_STEPS = 500_000

# What a state dictionary is made by.
_FUNCTIONS = {
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch.nn.parameter Parameter",
    "torch Size",
    "collections OrderedDict",
}

_KINDS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_STORAGES = {f"{module} {kind}Storage" for module in ("torch", "torch.cuda") for kind in _KINDS}


class _Global(NamedTuple):
    """A function or class by its name."""

    name: str


# What stands on the stack besides texts, globals and tuples.
_NUMBER, _MAPPING, _OTHER = object(), object(), object()

_Step = Callable[["_Machine", Any], object]


class UnsafeError(CheckpointError):
    """A pickle that would run code."""


class DamageError(CheckpointError):
    """Bytes that are no pickle, or one of another kind than torch makes of tensors."""


def scan(content: bytes) -> tuple[set[str], int]:
    """Return the texts that are keys in a pickle, and its length in bytes.

    Args:
        content: Bytes that begin with it.

    Raises:
        UnsafeError: naming what it would call, if that is more than tensors are made of.
        DamageError: if it is something else than tensors in lists and mappings.
    """
    machine = _Machine()
    try:
        operations = pickletools.genops(io.BytesIO(content))
        for number, (opcode, argument, place) in enumerate(operations, start=1):
            step = _STEPS.get(opcode.name)
            if step is None or number > _MAX_STEPS:
                raise DamageError("more or other than tensors by name")
            step(machine, argument)
            if opcode.name == "STOP":
                return machine.keys, (place or 0) + 1
    # What pickletools meets damage with, and a stack that runs empty.
    except (ValueError, LookupError, OverflowError, MemoryError):
        pass
    raise DamageError("no whole pickle")


@dataclass(slots=True)
class _Machine:
    """The stack of a pickle's program, with kinds of values in the place of values."""

    stack: list[object] = field(default_factory=list)
    marks: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def unmark(self) -> list[object]:
        """Return what was put on the stack since the mark, and drop it."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def group(self, count: int | None) -> None:
        """Push a tuple; tuples in it count as any other value."""
        items = self.unmark() if count is None else self.take(count)
        self.push(tuple([_OTHER if type(item) is tuple else item for item in items]))

    def take(self, count: int) -> list[object]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        self.push(self.memo[place])

    def name(self, argument: str) -> None:
        if argument not in _FUNCTIONS | _STORAGES:
            shown = "".join(letter for letter in argument[:80] if letter.isprintable())
            raise UnsafeError(shown.replace(" ", "."))
        self.push(_Global(argument))

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Global) or function.name not in _FUNCTIONS:
            raise DamageError("a call of no function")
        # A mapping made of pairs could have anything for keys.
        if function.name.startswith("collections") and arguments != ():
            raise DamageError("a mapping made of others")
        self.push(_OTHER)

    def build(self) -> None:
        if self.stack.pop() is not _MAPPING:
            raise DamageError("a state that is no mapping")

    def storage(self) -> None:
        """Replace the name of a storage by the storage; torch looks the name up, so it is plain."""
        group = self.stack.pop()
        if type(group) is not tuple or _OTHER in group:
            raise DamageError("a storage without a plain name")
        self.push(_OTHER)

    def set_items(self, items: list[object]) -> None:
        for key in items[::2]:
            if isinstance(key, str):
                self.keys.add(key)
            elif key is not _NUMBER:
                raise DamageError("a key that is no text")


_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE")

# The operations that torch writes, of the many that there are; each takes its argument.
_STEPS: dict[str, _Step] = {
    "PROTO": lambda _machine, _: None,
    "STOP": lambda machine, _: machine.stack.pop(),
    "MARK": lambda machine, _: machine.mark(),
    "BINUNICODE": _Machine.push,
    "SHORT_BINSTRING": _Machine.push,
    **dict.fromkeys(_NUMBERS, lambda machine, _: machine.push(_NUMBER)),
    "EMPTY_DICT": lambda machine, _: machine.push(_MAPPING),
    "EMPTY_LIST": lambda machine, _: machine.push(_OTHER),
    "EMPTY_TUPLE": lambda machine, _: machine.group(0),
    "TUPLE": lambda machine, _: machine.group(None),
    "TUPLE1": lambda machine, _: machine.group(1),
    "TUPLE2": lambda machine, _: machine.group(2),
    "TUPLE3": lambda machine, _: machine.group(3),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": _Machine.name,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine.call()),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.storage(),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.unmark()),
    "APPEND": lambda machine, _: machine.stack.pop(),
    "APPENDS": lambda machine, _: machine.unmark(),
}
