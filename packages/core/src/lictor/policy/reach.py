"""Which tools can run without an approval by somebody else.

Rules enforced here:

1. A tool counts as reachable unless it is proven not to be: by a forbid that binds every principal
   and that nothing but an approval lifts. A condition on anything else is no proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lictor.model import ToolKey
from lictor.policy.cedar import CedarPolicy
from lictor.policy.source import Statement

_BY_OTHERS: Final = ("approval:", "four-eyes:")


@dataclass(frozen=True, slots=True)
class Reach:
    """How a tool can be reached.

    Attributes:
        open: It may run without an approval, as far as can be proven.
        sometimes: Ids of the policies that demand an approval, but not of every call.
    """

    open: bool
    sometimes: tuple[str, ...] = ()


def reach(policy: CedarPolicy, key: ToolKey) -> Reach:
    """Whether calls of a tool can be allowed without an approval.

    Args:
        policy: A snapshot.
        key: The tool.
    """
    found = policy.slices.get(key)
    if found is None or not any(each.permits for each in found.statements):
        return Reach(open=False)
    forbids = [each for each in found.statements if not each.permits]
    if any(_always(each) for each in forbids):
        return Reach(open=False)
    return Reach(
        open=True,
        sometimes=tuple(each.id for each in forbids if each.require.startswith(_BY_OTHERS)),
    )


def _always(statement: Statement) -> bool:
    """Whether a forbid of this slice fires for every call that nobody has approved."""
    est = statement.est
    if est["principal"]["op"] != "All" or est["action"]["op"] not in ("All", "==", "in"):
        return False
    if est["resource"]["op"] not in ("All", "==", "in"):
        return False
    if statement.require and not statement.require.startswith(_BY_OTHERS):
        return False
    return all(_lifted_by(each, statement.require) for each in est["conditions"])


def _lifted_by(condition: Any, require: str) -> bool:
    """Whether it says no more than `unless { context.met.contains("…") }`."""
    met = {".": {"left": {"Var": "context"}, "attr": "met"}}
    body = {"contains": {"left": met, "right": {"Value": require}}}
    return bool(require) and condition == {"kind": "unless", "body": body}
