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
from lictor.audit.rules import Rule, has_policy, policy_entry, rules_of
from lictor.audit.select import Filters, filters, records, show
from lictor.audit.when import instant, shown

__all__ = [
    "Filters",
    "Line",
    "Problem",
    "Rule",
    "StreamReport",
    "Verification",
    "export",
    "filters",
    "find",
    "has_policy",
    "instant",
    "parse_head",
    "policy_entry",
    "records",
    "rules_of",
    "show",
    "shown",
    "verify",
    "verify_lines",
]
