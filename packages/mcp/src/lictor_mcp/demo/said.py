"""What the demo says, and what it claims by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

from lictor.forms import visible
from lictor_mcp.demo.client import Client, Silent, code_of, text_of

WIDTH: Final = 96
RED: Final = "red"
GREEN: Final = "green"
BOLD: Final = "bold"


class Said:
    """Lines for the reader, and whether each claim was true.

    Args:
        say: Shows one line in a style; lines are fit for a terminal.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self.claims: dict[str, bool] = {}

    def line(self, text: str = "", style: str = "") -> None:
        """Shows one line of ours."""
        self._say(text, style)

    def shown(self, lines: Sequence[str], indent: str = "  ") -> None:
        """Shows what a command of ours has printed."""
        for each in lines:
            room = len(each) - len(each.lstrip())
            first = indent + each[:room]
            rows = wrap(
                each[room:],
                WIDTH,
                initial_indent=first,
                subsequent_indent=f"{first}  ",
                break_on_hyphens=False,
            )
            for row in rows:
                self.line(row, RED if "look twice:" in each else "")

    def claim(self, text: str, true: bool) -> bool:
        """Notes a claim; one that is not true is shown."""
        self.claims[text] = true
        if not true:
            self.line(f"  NOT SO: {text}", "bold red")
        return true

    def attempt(self, claim: str, act: Callable[[], None]) -> None:
        """Shows a part; one whose server does not answer is a claim that is not true."""
        try:
            act()
        except Silent as error:
            self.line(f"  {visible(str(error))}", RED)
            self.claim(claim, False)

    def called(self, client: Client, name: str, about: str, arguments: Mapping[str, Any]) -> str:
        """Makes a call, and shows what came of it.

        Returns:
            The reason of a denial; `error` for a failure, empty if it was done.
        """
        result = client.call(name, **arguments)
        code = code_of(result)
        told = {"": "done", "error": f"failed: {visible(text_of(result))}"}.get(code, code)
        denied = f"denied: {told}" if code not in ("", "error") else told
        self.line(f"  {name:<16} {about:<28} {denied}", RED if code else "")
        return code
