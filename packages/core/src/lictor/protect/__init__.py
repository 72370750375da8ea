"""The gate protects its own home: who may write it, and what leads into it."""

from lictor.protect.reach import Protected
from lictor.protect.startup import Exposed, exposed, refuse_exposed, refuse_unsafe

__all__ = ["Exposed", "Protected", "exposed", "refuse_exposed", "refuse_unsafe"]
