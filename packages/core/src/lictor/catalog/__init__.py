"""The operator's reviewed tools: what is known, what has changed, what waits for a decision."""

from lictor.catalog.classify import Decided, classify
from lictor.catalog.code import origin_of
from lictor.catalog.drift import Change, Drift, diff, drift
from lictor.catalog.locking import LockResult, lock
from lictor.catalog.propose import Proposal, propose
from lictor.catalog.remarks import remarks
from lictor.catalog.reviewed import Catalog
from lictor.catalog.seen import note, read_seen

__all__ = [
    "Catalog",
    "Change",
    "Decided",
    "Drift",
    "LockResult",
    "Proposal",
    "classify",
    "diff",
    "drift",
    "lock",
    "note",
    "origin_of",
    "propose",
    "read_seen",
    "remarks",
]
