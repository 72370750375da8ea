"""The text of policies, kept in the journal: what a rule said on the day it decided.

Rules enforced here:

1. A snapshot of policies is one record of kind `policy`; its code is the digest that decisions
   name.
2. It is written before the first decision under it, and once in a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lictor.audit.journal import connect
from lictor.canonical import Json
from lictor.ports import Entry

_HAS = "SELECT 1 FROM record WHERE kind = 'policy' AND code = ? LIMIT 1"


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy as it stood.

    Attributes:
        id: Its id.
        where: File and line.
        text: As written.
    """

    id: str
    where: str
    text: str


def has_policy(path: Path, digest: str) -> bool:
    """Whether a store holds the text of a snapshot.

    Raises:
        StoreError: It cannot be read.
    """
    with closing(connect(path)) as db:
        return db.execute(_HAS, (digest,)).fetchone() is not None


def policy_entry(digest: str, rules: Iterable[Rule], at: float) -> Entry:
    """The record of a snapshot."""
    listed: list[Json] = [{"id": rule.id, "where": rule.where, "text": rule.text} for rule in rules]
    return Entry("policy", int(at * 1_000_000), {"policies": listed}, code=digest)


def rules_of(body: Mapping[str, Json]) -> dict[str, Rule]:
    """The policies that a record of kind `policy` holds, by id."""
    found, listed = dict[str, Rule](), body.get("policies")
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, dict):
            rule = Rule(*(str(each.get(name, "")) for name in ("id", "where", "text")))
            found[rule.id] = rule
    return found
