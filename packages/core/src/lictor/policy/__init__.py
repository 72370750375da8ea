"""Policy-as-code: the Cedar engine, its guardrails, `[[rule]]`, explanations and lint."""

from lictor.policy.cedar import CedarPolicy
from lictor.policy.source import Declared, PolicySource, guardrail

__all__ = ["CedarPolicy", "Declared", "PolicySource", "guardrail"]
