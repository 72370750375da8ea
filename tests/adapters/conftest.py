"""A gate over real tools and a real store, and what it has written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lictor import audit
from lictor.gate import Gate
from lictor.task import Task
from lictor.testing import UnsafeAllowAll
from lictor_langchain.testing import gate_over


class Host:
    """A gate, and its records."""

    def __init__(self, folder: Path, tools: tuple[Any, ...], **options: Any) -> None:
        self.folder = folder
        self.gate: Gate = gate_over(folder, tools, **options)

    def task(self, *tools: str, **more: Any) -> Task:
        """A task for alice; it may only read unless it names tools."""
        given: dict[str, Any] = {"agent": "bot", "on_behalf_of": "alice", "session": "s", **more}
        return self.gate.task(tools=tools or None, **given)

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Bodies of the records of a kind."""
        self.gate.store.commit(durable=True).result(20.0)
        found = [line.body for line in audit.show(self.folder / "lictor.db")]
        return [body for body in found if body["kind"] == kind]

    def codes(self) -> list[str]:
        """Reasons of all decisions, in order."""
        return [str(body["code"]) for body in self.lines("decision")]

    def outcomes(self) -> list[str]:
        """Outcomes, in order."""
        return [str(body["verdict"]) for body in self.lines("outcome")]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Makes hosts; the policy allows everything unless told otherwise."""
    with ExitStack() as stack:

        def make(*tools: Any, **options: Any) -> Host:
            options.setdefault("policy", UnsafeAllowAll())
            if options["policy"] is None:
                del options["policy"]
            made = Host(tmp_path, tools, **options)
            stack.callback(made.gate.close)
            return made

        yield make
