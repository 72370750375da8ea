"""The hash chain of one stream: what a record's bytes are and how each hangs on the one before.

Rules enforced here:

1. `seq` is contiguous from 1 within a stream, given by the stream's only writer.
2. `hash = SHA-256(hash of the record before || body)`; the first hangs on 32 zero bytes.
3. The body is canonical JSON (RFC 8785) and names its own place; an entry cannot overwrite it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from lictor.canonical import Json, canonical
from lictor.errors import StoreError
from lictor.ports import Entry, Head

VERSION: Final = 1
"""Format of a record's body; written into it as `v`."""
ROOT: Final = bytes(32)


def link(before: bytes, body: bytes) -> bytes:
    """The hash of a record: the chain is this and nothing else."""
    return hashlib.sha256(before + body).digest()


class Chain:
    """Where a stream stands, and the next record's row. Used by one thread at a time."""

    __slots__ = ("batch", "hash", "placement", "seq", "stream")

    def __init__(self, stream: str, placement: str) -> None:
        self.stream = stream
        self.placement = placement
        self.seq = 0
        self.hash = ROOT
        self.batch = 0

    @property
    def head(self) -> Head:
        """The newest record, as a value."""
        return Head(self.stream, self.seq, self.hash.hex())

    @property
    def mark(self) -> tuple[int, bytes, int]:
        """What `reset` goes back to."""
        return self.seq, self.hash, self.batch

    def reset(self, mark: tuple[int, bytes, int]) -> None:
        """Goes back, after a rollback."""
        self.seq, self.hash, self.batch = mark

    def seal(self, entry: Entry) -> dict[str, object]:
        """Gives the entry its place and returns the row to insert.

        Raises:
            StoreError: The entry sets a field that the store sets, or is not JSON.
        """
        seq = self.seq + 1
        place: dict[str, Json] = {
            "v": VERSION,
            "stream": self.stream,
            "seq": seq,
            "kind": entry.kind,
            "at": entry.at,
            "call": entry.call,
            "tenant": entry.tenant,
            "task": entry.task,
            "tool": entry.tool,
            "verdict": str(entry.verdict),
            "code": entry.code,
        }
        taken = place.keys() & entry.body.keys()
        if taken:
            raise StoreError(
                f"a record's body sets {', '.join(sorted(taken))}, which the store sets",
                "rename these keys of Entry.body",
            )
        body = canonical({"placement": self.placement, **entry.body, **place})
        self.seq, self.hash = seq, link(self.hash, body)
        del place["v"]
        return {**place, "body": body, "hash": self.hash}
