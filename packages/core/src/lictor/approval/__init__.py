"""Asking people: every ask is stored, answered once, and its answer used once."""

from lictor.approval.desk import Desk, remaining, seal, settle
from lictor.approval.watched import Watched, watching

__all__ = ["Desk", "Watched", "remaining", "seal", "settle", "watching"]
