"""What the suite needs of a guard on a host.

A driver makes tools of the host in every shape the host knows, puts them under the guard, and calls
them by every path on which the host can run a tool. What a host or a guard does not have is left
out: the suite says "not applicable" for it, with the driver's reason, never "held".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from lictor.testing.adapter_suite.world import Arguments, World


@dataclass(frozen=True, slots=True)
class Probe:
    """A tool to be made.

    Attributes:
        name: Its name.
        shape: One of the driver's shapes; the driver's first if empty. A tool of the first shape
            takes an integer `n` and, if they are given, integers `items`.
        effect: It changes something; else it reads.
        known: The guard has been told of it; else nobody has reviewed it.
        body: The name under which its body notes that it ran; its own if empty.
    """

    name: str = "act"
    shape: str = ""
    effect: bool = False
    known: bool = True
    body: str = ""

    @property
    def ran_as(self) -> str:
        """The name under which its body notes that it ran."""
        return self.body or self.name


class Missing(Exception):
    """The host has no such thing, or the guard does not claim to cover it; says why."""


class Session:
    """Tools under a guard. A driver overrides what its host has."""

    def call(self, path: str, name: str, arguments: Arguments) -> str:
        """Calls a tool by a path and gives the text that reaches the model or the program.

        Raises:
            Exception: Whatever comes out of the host.
        """
        raise NotImplementedError

    async def acall(self, name: str, arguments: Arguments) -> str:
        """Calls a tool on the running event loop, by the host's usual path."""
        raise Missing("the host has no asynchronous path")

    def listed(self) -> frozenset[str]:
        """Names that the model is offered."""
        raise Missing("the guard does not see what the model is offered")

    def recorded(self) -> list[str]:
        """Reasons of all decisions on record so far, in order."""
        raise Missing("the guard keeps no record")

    def lose_record(self) -> None:
        """From now on nothing can be recorded."""
        raise Missing("the guard keeps no record")

    def raw(self, name: str) -> Mapping[str, Callable[[Arguments], Any]]:
        """Entrances of the guarded tool that the host's paths do not use."""
        raise Missing("the host's tools have no other entrance")

    def replay(self, name: str, arguments: Arguments) -> str:
        """Makes one call of the host twice, with one id, as on a resume; gives the second text."""
        raise Missing("the host gives no ids to calls")

    def rename(self, name: str, new: str) -> str:
        """Renames the guarded tool and calls it by its new name with `n` 3."""
        raise Missing("nobody but its owner can rename a tool")

    def swap(self, name: str, other: str) -> str:
        """Has another tool run where `name` is called with `n` 3, after the guard was set."""
        raise Missing("nothing stands between the guard and the tool")

    def add(self, probe: Probe) -> str:
        """Adds a tool to what the host may call, after the guard was set; calls it, `n` 3."""
        raise Missing("tools cannot be added")

    def shadow(self, probe: Probe) -> str:
        """Offers a second tool under a name that is taken; calls that name with `n` 3."""
        raise Missing("a name cannot be offered twice")

    def retry(self, name: str, arguments: Arguments) -> str:
        """Calls through what the host has that tries again."""
        raise Missing("the host does not try again")

    def fall_back(self, name: str, arguments: Arguments, probe: Probe) -> str:
        """Calls through the host's fallback to another tool, which nobody guards."""
        raise Missing("the host has no fallback")


class Driver:
    """A guard on a host.

    Attributes:
        name: Of the guard, for the scorecard.
        host: What it guards.
        shapes: Kinds of tools, the plainest first.
        paths: Ways to call one, the plainest first.
        denied: How the text of a denial begins, where the guard gives it as a value.
    """

    name: str = ""
    denied: str = ""
    host: str = ""
    shapes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def impossible(self, shape: str, path: str) -> str:
        """Why the host itself cannot call this shape by this path; empty if it can."""
        return ""

    def arguments(self, shape: str, n: int) -> dict[str, Any]:
        """What a model would send to a tool of this shape for a number."""
        return {"n": n}

    def open(self, world: World, *probes: Probe) -> AbstractContextManager[Session]:
        """Makes the tools, guards them, and has the guard ask `world.decide`."""
        raise NotImplementedError
