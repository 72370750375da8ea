"""The desk: between the gate, which needs an answer, and the channel, which reaches a person.

Rules enforced here:

1. An ask is in the store, with its record, before anybody sees it; its answer is a compare-and-set
   with a record of its own, and is used once, in the transaction of the decision it allows.
2. An answer counts for one task and one digest, and only while the question would still say the
   same of the session; of equal calls under way one asks at a time. A no stands for the task:
   nobody is worn down.
3. A row proves nothing by itself: the question and the answer are bound to this deployment's record
   key, with all that they say, so that nobody answers another question than was asked.
4. Here a person at a terminal or at `lictor watch` is not authenticated, so the answer can only be
   a `confirm:user`; `approval:` and `four-eyes:` are not asked at all.
5. Once it is answered, an ask keeps only those arguments that may stand in records.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from lictor.canonical import Json, canonical, thawed
from lictor.errors import StoreError
from lictor.model import Assurance, ulid
from lictor.ports import (
    AnswerAsk,
    Approvals,
    Ask,
    AskIs,
    AskRow,
    Clock,
    Entry,
    PutAsk,
    Reply,
    Store,
)

CONFIRM: Final = "confirm:user"
COMMIT_SECONDS: Final = 10.0
DAY: Final = 86_400
"""How long a question, or an answer that nobody has used, counts at most."""
GLANCE: Final = 0.05
"""Seconds between looks at whether the caller is gone."""
_STATES: Final = frozenset({"granted", "rejected", "pending", "expired", "unavailable"})
ENDED: Final = "the task was ended while a person was asked"
EDITED: Final = "its seal is not ours: somebody has edited the store"
_ARGUMENTS: Final = ("arguments", "recorded")
_OVER: Final = {
    "withdrawn": "the question was withdrawn: its task or its caller is gone",
    "expired": "nobody answered while it stood",
}
Seal: TypeAlias = Callable[[bytes], str]
"""Keyed digest of bytes; `RecordKey.digest`."""


class Desk:
    """Puts asks before people through one channel. An `Approvals` for the gate's stages."""

    def __init__(
        self, store: Store, channel: Approvals, key: Seal, clock: Clock = time.time
    ) -> None:
        self._store, self._channel, self._key, self._clock = store, channel, key, clock
        self._turn, self._under_way = threading.Condition(), set[tuple[str, str]]()
        _desks.add(self)

    @property
    def lasting(self) -> bool:
        """Whether somebody can still answer when the wait is over."""
        return self._channel.lasting

    def ready(self, ask: Ask) -> str:
        """Why nobody can be asked, or nothing."""
        unmet = [kind for kind in ask.kinds if kind != CONFIRM]
        if unmet:
            return (
                f"{', '.join(unmet)} needs a person whose identity is proved; a terminal and "
                "lictor watch prove none, so it cannot be given here"
            )
        return self._channel.ready(ask)

    def answer(self, ask: Ask) -> Reply:
        """Asks, or tells how an earlier ask for the same call of the task stands.

        Raises:
            StoreError: The ask or its answer cannot be recorded.
        """
        equal = ask.task, _digest(ask)
        while not ask.gone.is_set():
            with self._turn:
                if equal in self._under_way and not self.lasting:
                    self._turn.wait(GLANCE)  # what is answered there may answer this one
                    continue
                found = self._begun(ask)
                if isinstance(found, Reply):
                    return found
                self._under_way.add(equal)
            try:
                reply = self._asked(found, ask)
            finally:
                with self._turn:
                    self._under_way.discard(equal)
                    self._turn.notify_all()
            if reply is not None:
                return reply
        return Reply("unavailable", detail="nobody waits for the answer any more")

    def forked(self) -> None:
        """In a forked child: whoever had the turn stayed behind."""
        self._turn, self._under_way = threading.Condition(), set()

    def _begun(self, ask: Ask) -> AskRow | Reply:
        """The stored ask, still open; or what there is to say about it already."""
        row = self._standing(ask)
        if row is not None and self._said_less(row, ask):
            if row.state == "pending":
                over = Reply("withdrawn", row.id)
                settle(self._store, row, over, self._key, self._clock())
            row = None
        if row is not None and row.state != "pending":
            return self._told(row)
        unready = self.ready(ask)
        if unready:
            return Reply("unavailable", detail=unready)
        if row is None:
            return self._put(ask)
        return row if row.mac == seal(self._key, row) else _edited(row)

    def _asked(self, row: AskRow, ask: Ask) -> Reply | None:
        """Asks; `None`: an equal call has used this question up, and this one needs its own."""
        reply = self._channel.answer(replace(ask, id=row.id))
        if type(reply) is not Reply or reply.state not in _STATES:
            reply = Reply("unavailable", detail=f"the channel answered {reply!r}"[:300])
        if reply.state not in ("pending", "unavailable"):
            settle(self._store, row, reply, self._key, self._clock())
        stored = self._store.ask(row.id)
        if stored is None:
            raise StoreError(f"ask {row.id} is gone from the store", "lictor audit verify")
        if stored.state == "used":
            return None
        if stored.state != "pending":
            return self._told(stored)
        if reply.state == "unavailable":
            settle(self._store, row, replace(reply, state="withdrawn"), self._key, self._clock())
        return replace(reply, ref=row.id)

    def _standing(self, ask: Ask) -> AskRow | None:
        """An earlier ask that still means something."""
        row = self._store.standing(ask.task, _digest(ask))
        if row is None or row.state in ("used", "withdrawn", "expired"):
            return None
        if self._clock() >= row.expires:
            return None
        return None if set(row.kinds) != set(ask.kinds) else row

    def _said_less(self, row: AskRow, ask: Ask) -> bool:
        """Whether an earlier question of ours, not answered with a no, tells less than this one."""
        if row.state == "rejected" or row.mac != seal(self._key, row):
            return False
        return not _said(row, ask)

    def _told(self, row: AskRow) -> Reply:
        """What a settled row says, if it says so under our key."""
        if row.state not in ("granted", "rejected"):
            if self._store.ended((row.task,)):
                return Reply("ended", row.id, detail=ENDED)
            return Reply("expired", row.id, detail=_OVER.get(row.state, ""))
        if row.mac != seal(self._key, row):
            return _edited(row)
        return Reply(row.state, row.id, row.by, row.channel, row.assurance)

    def _put(self, ask: Ask) -> AskRow:
        at = self._clock()
        row = AskRow(
            ulid(at),
            "pending",
            ask.task,
            ask.call_id,
            _digest(ask),
            ask.tenant,
            str(ask.tool),
            ask.kinds,
            _request(ask, ask.arguments),
            int(at * 1_000_000),
            min(ask.expires or int(at) + DAY, int(at) + DAY),
        )
        row = replace(row, mac=seal(self._key, row))
        body: dict[str, Json] = {
            "id": row.id,
            "kinds": list(ask.kinds),
            "why": list(ask.why),
            "digest": row.digest,
            "user": ask.user,
            "agent": ask.agent,
            "impact": list(ask.impact),
            "arguments": dict(ask.recorded),
            "labels": _list(sorted(ask.labels)),
        }
        entry = _entry("ask", at, row, "pending", body)
        self._store.commit((), (PutAsk(row),), (entry,), durable=True).result(COMMIT_SECONDS)
        return row


def settle(store: Store, row: AskRow, reply: Reply, key: Seal, at: float) -> bool:
    """Writes down an answer, with its record.

    Args:
        store: The store.
        row: The ask, pending.
        reply: `granted`, `rejected`, `expired` or `withdrawn`.
        key: Seals the answer.
        at: Epoch seconds.

    Returns:
        Whether it was still pending; if not, nothing was written.

    Raises:
        StoreError: It cannot be written, or the ask is none that a gate with this key has put.
    """
    if row.mac != seal(key, row):
        raise StoreError(f"ask {row.id}: {EDITED}", "end its task; lictor audit verify")
    kept = remaining(row.request)
    done = replace(
        row,
        state=reply.state,
        request=kept,
        by=reply.by,
        channel=reply.channel,
        assurance=reply.assurance,
    )
    answered = AnswerAsk(
        row.id,
        reply.state,
        kept,
        int(at * 1_000_000),
        reply.by,
        reply.channel,
        reply.assurance,
        seal(key, done),
    )
    body: dict[str, Json] = {
        "ask": row.id,
        "kinds": list(row.kinds),
        "digest": row.digest,
        "by": reply.by,
        "channel": reply.channel,
        "assurance": reply.assurance,
        "evidence": reply.assurance == Assurance.VERIFIED and not _dev(row),
        "shown": reply.shown,
        "took_ms": max(0, int(at * 1_000) - row.asked // 1_000),
    }
    entry = _entry("answer", at, row, reply.state, body)
    guards = (AskIs(row.id, "pending"),)
    committed = store.commit(guards, (answered,), (entry,), durable=True).result(COMMIT_SECONDS)
    return committed.moved is None


def seal(key: Seal, row: AskRow) -> str:
    """What binds an ask, and later its answer, to the record key: everything that they say."""
    asked: list[Json] = [row.id, row.task, row.call, row.digest, row.tenant, row.tool, row.asked]
    answer: list[Json] = [row.state, row.by, row.channel, row.assurance]
    kinds = _list(sorted(row.kinds))
    return key(canonical(["ask", asked, row.expires, kinds, thawed(row.request), answer]))


def remaining(request: Mapping[str, Json]) -> dict[str, Json]:
    """What stays of a request when it has been answered."""
    kept = {name: value for name, value in request.items() if name not in _ARGUMENTS}
    return {**kept, "arguments": request.get("recorded", {})}


def _edited(row: AskRow) -> Reply:
    return Reply("unavailable", row.id, detail=EDITED)


def _said(row: AskRow, ask: Ask) -> bool:
    """Whether an earlier question has told the person all that this one would."""
    known, fresh = row.request, _request(ask, {})
    if known.get("impact") != fresh["impact"]:
        return False
    return all(_names(fresh[each]) <= _names(known.get(each)) for each in ("labels", "sources"))


def _names(value: Json) -> set[Json]:
    return {each for each in value if isinstance(each, str)} if isinstance(value, list) else set()


def _dev(row: AskRow) -> bool:
    """Whether it is asked where nobody's identity was established at all."""
    return row.request.get("assurance") == Assurance.DEV


def _digest(ask: Ask) -> str:
    return f"{ask.digest}#repeat" if ask.repeat else ask.digest


def _request(ask: Ask, arguments: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "user": ask.user,
        "agent": ask.agent,
        "impact": list(ask.impact),
        "why": list(ask.why),
        "labels": _list(sorted(ask.labels)),
        "sources": _list(sorted(ask.sources)),
        "assurance": ask.assurance,
        "repeat": ask.repeat,
        "arguments": dict(arguments),
        "recorded": dict(ask.recorded),
    }


def _entry(kind: str, at: float, row: AskRow, state: str, body: Mapping[str, Json]) -> Entry:
    when = int(at * 1_000_000)
    return Entry(kind, when, body, row.call, row.tenant, row.task, row.tool, state)


def _list(texts: Iterable[str]) -> list[Json]:
    return list(texts)


_desks: weakref.WeakSet[Desk] = weakref.WeakSet()


def _after_fork() -> None:
    for desk in list(_desks):
        desk.forked()


os.register_at_fork(after_in_child=_after_fork)
