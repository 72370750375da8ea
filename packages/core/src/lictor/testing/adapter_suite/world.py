"""What one trial sees: whom the guard asked, what ran, and what stands in between."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Arguments: TypeAlias = "Mapping[str, Any]"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool and its arguments as they were at one moment.

    Attributes:
        name: Of the tool.
        text: The arguments as JSON text with sorted keys: `1`, `1.0` and `true` differ.
    """

    name: str
    text: str

    @classmethod
    def of(cls, name: str, arguments: Arguments) -> Call:
        """Takes a picture of a call; an argument that is null counts as left out."""
        given = {key: value for key, value in arguments.items() if value is not None}
        return cls(name, json.dumps(given, sort_keys=True, default=repr))

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments, as a new object."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    def __str__(self) -> str:
        return f"{self.name}({self.text})"


Decide: TypeAlias = Callable[[str, Arguments], Any]
"""What a guard asks before a call: `True` allows it, anything else and any exception does not."""


@dataclass(slots=True)
class World:
    """One trial. A guard asks `decide`, the body of a tool is `body(name)`.

    Attributes:
        answer: What `decide` says: a value, an exception that it raises, or a function of the call.
        slow: The answer may not come before somebody lets it: the guard has to bound its wait.
        task: The trial's calls have authority; without it nobody has.
        during: Happens while the guard decides, before the answer.
        inside: Happens in the body; its result is what the tool gives.
        asked: What the guard asked about.
        ran: What ran.
    """

    answer: Any = True
    slow: bool = False
    task: bool = True
    during: Callable[[Call], None] | None = None
    inside: Callable[[Call], Any] | None = None
    asked: list[Call] = field(default_factory=list)
    ran: list[Call] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def decide(self, name: str, arguments: Arguments) -> Any:
        """The engine behind the guard.

        Raises:
            BaseException: What the trial wants it to raise.
        """
        call = Call.of(name, arguments)
        with self.lock:
            self.asked.append(call)
        if self.during is not None:
            self.during(call)
        answer = self.answer(call) if callable(self.answer) else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def body(self, name: str) -> Callable[[Arguments], str]:
        """The body of the tool of this name."""
        return _Body(self, name).run


@dataclass(slots=True)
class _Body:
    world: World
    name: str

    def run(self, arguments: Arguments) -> str:
        call = Call.of(self.name, copy.deepcopy(dict(arguments)))
        with self.world.lock:
            self.world.ran.append(call)
        inside = self.world.inside
        return f"ran {self.name}" if inside is None else str(inside(call))
