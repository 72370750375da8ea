"""The user's own agent under attack: his tools, his catalog and policy, nothing that really runs.

Rules enforced here:

1. No body of the user runs: each is replaced by one that notes what reached it.
2. Nothing of his is written: his gate comes up over a store of its own, which is thrown away.
3. What is printed was tried. What was not tried is named with the reason; there is no score.
"""

from __future__ import annotations

from lictor.attack.bypasses import BYPASSES
from lictor.attack.lab import Finding, Lab, Target
from lictor.attack.run import run

__all__ = ["BYPASSES", "Finding", "Lab", "Target", "run"]
