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
from lictor.audit.page import write_page
from lictor.audit.report import Report, gather, unrecorded
from lictor.audit.rules import Rule, has_policy, policy_entry, rules_of
from lictor.audit.select import Filters, filters, records, show
from lictor.audit.twin import Checked, check, is_report, write_json
from lictor.audit.when import instant, shown

__all__ = [
    "Checked",
    "Filters",
    "Line",
    "Problem",
    "Report",
    "Rule",
    "StreamReport",
    "Verification",
    "check",
    "export",
    "filters",
    "find",
    "gather",
    "has_policy",
    "instant",
    "is_report",
    "parse_head",
    "policy_entry",
    "records",
    "rules_of",
    "show",
    "shown",
    "unrecorded",
    "verify",
    "verify_lines",
    "write_json",
    "write_page",
]
