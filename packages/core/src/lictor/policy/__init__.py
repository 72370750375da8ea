"""Policy-as-code: the Cedar engine, its guardrails, `[[rule]]`, explanations and lint."""

from lictor.policy.cedar import CedarPolicy
from lictor.policy.lint import Finding, lint
from lictor.policy.rules import compile_rules
from lictor.policy.source import Declared, PolicySource, guardrail

__all__ = [
    "CedarPolicy",
    "Declared",
    "Finding",
    "PolicySource",
    "compile_rules",
    "guardrail",
    "lint",
]
