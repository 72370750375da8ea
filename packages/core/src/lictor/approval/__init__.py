"""Asking people: every ask is stored, answered once, and its answer used once."""

from lictor.approval.desk import Desk, remaining, seal, settle
from lictor.approval.render import ask_of, confirm_lines, digest_of
from lictor.approval.terminal import AtTerminal, Gone, Screen, Terminal, Unanswered
from lictor.approval.tty import NoTerminal
from lictor.approval.watched import Watched, watching

__all__ = [
    "AtTerminal",
    "Desk",
    "Gone",
    "NoTerminal",
    "Screen",
    "Terminal",
    "Unanswered",
    "Watched",
    "ask_of",
    "confirm_lines",
    "digest_of",
    "remaining",
    "seal",
    "settle",
    "watching",
]
