"""Policy-as-code: the Cedar engine, its guardrails, `[[rule]]`, explanations and lint."""

from lictor.policy.cedar import CedarPolicy
from lictor.policy.explain import Explanation, explain
from lictor.policy.lint import Finding, lint
from lictor.policy.rules import compile_rules
from lictor.policy.source import Declared, PolicySource, guardrail

__all__ = [
    "CedarPolicy",
    "Declared",
    "Explanation",
    "Finding",
    "PolicySource",
    "compile_rules",
    "explain",
    "guardrail",
    "lint",
]
