"""Reading the journal: is it whole, what does it say, and a copy that others can check."""

from lictor.audit.chain import (
    Line,
    Problem,
    StreamReport,
    Verification,
    parse_head,
    verify_lines,
)
from lictor.audit.journal import export, find, show, verify

__all__ = [
    "Line",
    "Problem",
    "StreamReport",
    "Verification",
    "export",
    "find",
    "parse_head",
    "show",
    "verify",
    "verify_lines",
]
