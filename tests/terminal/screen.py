"""A terminal, as far as this package uses one."""

import re

_TOKEN = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n])")


class Screen:
    """What a terminal of endless height shows of what is written to it."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows = [""]
        self.row = self.column = 0

    @classmethod
    def of(cls, text: str, width: int) -> "Screen":
        """After all of a text."""
        screen = cls(width)
        for match in _TOKEN.finditer(text):
            screen._take(match)
        return screen

    def lines(self) -> list[str]:
        """What is to be seen, without empty lines at the end."""
        text = "\n".join(row.rstrip() for row in self.rows).rstrip("\n")
        return text.split("\n") if text else []

    def _take(self, match: re.Match[str]) -> None:
        private, number, command, back, down, letter = match.groups()
        if letter:
            self._write(letter)
        elif back:
            self.column = 0
        elif down:
            self._down()
        elif not private:
            self._control(command, int(number or 0) if number.isdigit() or not number else 0)

    def _write(self, letter: str) -> None:
        if self.column == self.width:
            self._down()
        row = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = row[: self.column] + letter + row[self.column + 1 :]
        self.column += 1

    def _down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.rows):
            self.rows.append("")

    def _control(self, command: str, number: int) -> None:
        if command == "A":
            self.row = max(0, self.row - number)
        elif command == "K":
            self.rows[self.row] = self.rows[self.row][: self.column] if number == 0 else ""
        elif command == "J":
            self.rows[self.row] = self.rows[self.row][: self.column]
            del self.rows[self.row + 1 :]
