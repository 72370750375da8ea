"""Which sessions there are over HTTP, whose they are, and when they are over.

Rules enforced here:

1. A session belongs to who opened it: to anybody else it is not there.
2. One that nobody uses for long is over, here and at the server; one with something under way is
   used.
3. A caller has so many, and all together have so many: who opens one more loses the one that he has
   not used for longest; if all of them are in use, he gets none.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from lictor_mcp.callers import Caller
from lictor_mcp.gateway.http_checks import Bad
from lictor_mcp.gateway.http_session import Session

IDLE_SECONDS: Final = 3600.0
MAX_OF_CALLER: Final = 64
MAX_SESSIONS: Final = 1024
Key: TypeAlias = tuple[str, str | tuple[Caller, bool]]
"""A server, and a session's id, or a caller without one and his protocol."""


class Sessions:
    """The sessions of all callers.

    Args:
        over: Ends one.
        clock: Seconds that only grow.
    """

    def __init__(
        self, over: Callable[[Session], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._end, self._clock = over, clock
        self._known: OrderedDict[Key, tuple[Session, float]] = OrderedDict()
        """The one that was not used for longest stands first."""

    def __iter__(self) -> Iterator[Session]:
        return iter([each for each, _ in self._known.values()])

    def of(self, server: str, caller: Caller, id: str) -> Session:
        """The session with this id.

        Raises:
            Bad: It is not there, or somebody else's.
        """
        self.sweep()
        found = self._known.get((server, id))
        if found is None or found[0].caller != caller:
            raise Bad(404, "there is no such session")
        return self._used((server, id), found[0])

    def without(
        self, server: str, caller: Caller, stateless: bool, new: Callable[[], Session]
    ) -> Session:
        """What a caller has under way without a session."""
        self.sweep()
        key = server, (caller, stateless)
        found = self._known.get(key)
        if found is None:
            made = self._used(key, new())
            self._trim(made)
            return made
        return self._used(key, found[0])

    def opened(self, session: Session) -> None:
        """Takes a session that the server has given an id.

        Raises:
            Bad: There are too many, or somebody has it already.
        """
        self.sweep()
        key = session.served.name, session.own.id or ""
        if key in self._known:
            session.own.id = None
            raise Bad(502, "the server gave two callers one session")
        self._used(key, session)
        try:
            self._trim(session)
        except Bad:
            self.drop(session)
            raise

    def drop(self, session: Session) -> None:
        """Ends a session."""
        for key, (each, _) in tuple(self._known.items()):
            if each is session:
                del self._known[key]
                self._end(session)

    def sweep(self) -> None:
        """Ends those that nobody has used for long."""
        now = self._clock()
        while self._known:
            key, (first, used) = next(iter(self._known.items()))
            if now - used < IDLE_SECONDS:
                return
            if first.busy:
                self._used(key, first)
            else:
                self.drop(first)

    def _used(self, key: Key, session: Session) -> Session:
        self._known[key] = session, self._clock()
        self._known.move_to_end(key)
        return session

    def _trim(self, new: Session) -> None:
        mine = [each for each in self if each.caller == new.caller]
        for group, most in ((mine, MAX_OF_CALLER), (list(self), MAX_SESSIONS)):
            idle = (each for each in group if each is not new and not each.busy)
            for _ in range(len(group) - most):
                oldest = next(idle, None)
                if oldest is None:
                    raise Bad(503, "there are too many sessions")
                self.drop(oldest)
