"""Session facts: what has entered one conversation so far, as policy can read it.

Rules enforced here:

1. Facts belong to the conversation (tenant and id), not to the task; they outlive tasks.
2. Labels and sources only grow.
3. A call is reserved under a lock before it is decided, so that two calls at once see each other.
4. A conversation whose history is unknown starts with the label `untrusted`.
5. Counts of reads are kept in memory and stored with the next effect, growth or end of the task.
"""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from lictor.model import UNITS
from lictor.ports import GrowSession, SessionFacts, SessionIs, SessionRow, Store

UNTRUSTED: Final = "untrusted"
_NOTHING: Final = Decimal(0)


class Reservation(NamedTuple):
    """One call in flight.

    Attributes:
        facts: What policy sees, this call included.
        version: The stored version behind it.
        growth: The stored growth behind it.
        effect: Whether the call is effectful.
        spend: In 1/10,000.
        number: Distinguishes calls in flight.
    """

    facts: SessionFacts
    version: int
    growth: int
    effect: bool
    spend: int
    number: int


class Session:
    """One conversation in this process. Every method is safe to call from any thread."""

    def __init__(self, store: Store, tenant: str, conversation: str) -> None:
        self.tenant = tenant
        self.conversation = conversation
        self.turn = threading.Lock()
        self._store = store
        self._lock = threading.Lock()
        self._row = SessionRow(tenant, conversation)
        self._stale = True
        self._read = False
        self._labels: frozenset[str] = frozenset()
        self._sources: frozenset[str] = frozenset()
        self._unsaved = 0
        self._flying: dict[int, Reservation] = {}
        self._count = 0

    def reserve(self, *, effect: bool, spend: int, fresh: bool, grows: bool = False) -> Reservation:
        """Counts a call in and returns the facts as they stand with it.

        Args:
            effect: Whether the call is effectful.
            spend: In 1/10,000.
            fresh: Read the stored facts first: the decision will rest on them. If it does not,
                facts that other processes have added meanwhile may be missing.
            grows: The result adds labels or sources: know which of them are stored already.
        """
        with self._lock:
            if fresh or not self._read or (grows and self._stale):
                self._refresh()
            row = self._row
            effects, spent = row.effects + effect, row.spent + spend
            for flying in self._flying.values():
                effects += flying.effect
                spent += flying.spend
            facts = SessionFacts(
                labels=row.labels | self._labels,
                sources=row.sources | self._sources,
                calls=row.calls + self._unsaved + len(self._flying) + 1,
                effects=effects,
                spent=Decimal(spent) / UNITS if spent else _NOTHING,
            )
            self._count += 1
            reservation = Reservation(facts, row.version, row.growth, effect, spend, self._count)
            self._flying[self._count] = reservation
            return reservation

    def release(self, reservation: Reservation, *, counted: bool) -> None:
        """Takes a call out of flight.

        Args:
            reservation: From `reserve`.
            counted: The call was let through and its count is not yet stored.
        """
        with self._lock:
            if self._flying.pop(reservation.number, None) is not None and counted:
                self._unsaved += 1

    def guard(self, reservation: Reservation, reads: frozenset[str]) -> tuple[SessionIs, ...]:
        """What must not have moved for a decision that read these facts."""
        counts = reservation.version if reads & {"calls", "effects", "spent"} else None
        growth = reservation.growth if reads & {"labels", "sources"} else None
        if counts is None and growth is None:
            return ()
        return (SessionIs(self.tenant, self.conversation, counts, growth),)

    def started(self, reservation: Reservation) -> GrowSession:
        """The write that stores an effectful call's counts, with those of the reads before it."""
        with self._lock:
            unsaved, self._unsaved = self._unsaved, 0
            self._stale = True
        return GrowSession(
            self.tenant,
            self.conversation,
            calls=unsaved + 1,
            effects=int(reservation.effect),
            spent=reservation.spend,
        )

    def not_stored(self, write: GrowSession) -> None:
        """Takes back `started` when its commit wrote nothing."""
        with self._lock:
            self._unsaved += write.calls - 1
            self._stale = True

    def refund(self, reservation: Reservation) -> GrowSession:
        """The write that takes back the counts of a call that was stored but never began."""
        with self._lock:
            self._stale = True
        return GrowSession(
            self.tenant,
            self.conversation,
            calls=-1,
            effects=-int(reservation.effect),
            spent=-reservation.spend,
        )

    def grow(self, labels: frozenset[str], sources: frozenset[str]) -> GrowSession | None:
        """Adds labels and sources at once in memory.

        Returns:
            The write that must be durable before the result is released; `None` if all are known.
        """
        with self._lock:
            # What was stored only grew since, so an old row errs towards storing once more; a store
            # that cannot be read must not keep a label from being known.
            new = (labels - self._row.labels) | (sources - self._row.sources)
            self._labels |= labels
            self._sources |= sources
            if not new:
                return None
            self._stale = True
        return GrowSession(self.tenant, self.conversation, labels=labels, sources=sources)

    def unsaved(self) -> GrowSession | None:
        """The write for counts not yet stored, if any."""
        with self._lock:
            unsaved, self._unsaved = self._unsaved, 0
            if not unsaved:
                return None
            self._stale = True
        return GrowSession(self.tenant, self.conversation, calls=unsaved)

    def moved(self) -> None:
        """Says that the stored facts are not what they were."""
        with self._lock:
            self._stale = True

    def _refresh(self) -> None:
        row = self._store.session(self.tenant, self.conversation)
        if row is not None:
            self._row = row
        self._stale, self._read = False, True


class Sessions:
    """The conversations that tasks of this process are working in."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._open: WeakValueDictionary[tuple[str, str], Session] = WeakValueDictionary()

    def open(self, tenant: str, conversation: str, *, known: bool = True) -> Session:
        """The session of a conversation; the same object for all tasks that are in it.

        Args:
            tenant: Tenant.
            conversation: The host's id of it.
            known: The caller named the conversation. If not, what is in it is unknown, and it
                starts `untrusted`.
        """
        with self._lock:
            session = self._open.get((tenant, conversation))
            if session is None:
                session = Session(self._store, tenant, conversation)
                self._open[tenant, conversation] = session
        if not known:
            write = session.grow(frozenset({UNTRUSTED}), frozenset())
            if write is not None:
                self._store.commit(writes=(write,), durable=False)
        return session
