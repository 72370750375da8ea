"""Reading the journal: is it whole, what does it say, and a copy that others can check."""

from lictor.audit.chain import (
    Line,
    Problem,
    StreamReport,
    Verification,
    parse_head,
    verify_lines,
)
from lictor.audit.journal import export, find, verify
from lictor.audit.select import Filters, filters, records, show
from lictor.audit.when import instant, shown

__all__ = [
    "Filters",
    "Line",
    "Problem",
    "StreamReport",
    "Verification",
    "export",
    "filters",
    "find",
    "instant",
    "parse_head",
    "records",
    "show",
    "shown",
    "verify",
    "verify_lines",
]
