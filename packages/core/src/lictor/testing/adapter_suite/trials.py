"""The table of all trials."""

from __future__ import annotations

from typing import Final

from lictor.testing.adapter_suite import arguments, engines, flow, others
from lictor.testing.adapter_suite.driver import Driver
from lictor.testing.adapter_suite.paths import cells
from lictor.testing.adapter_suite.trial import Ask, Trial

_FAILURES: Final[tuple[tuple[str, str, str, Ask], ...]] = (
    ("engine-raises", "an engine that raises", "X12", engines.raises),
    ("engine-interrupts", "an engine that raises what is no Exception", "X12", engines.interrupts),
    ("engine-nonsense", "an engine that answers nonsense", "X12", engines.nonsense),
    ("engine-hangs", "an engine that does not answer", "X12", engines.hangs),
    ("record-lost", "a record that cannot be kept", "X12", engines.no_record),
    ("cancelled", "a caller that goes meanwhile", "X12", flow.cancelled_while_deciding),
    ("body-raises", "a body that raises", "", flow.fails_inside),
    ("threads", "many threads at once", "X10", flow.threads),
    ("together", "many calls on one event loop", "X10", flow.together),
    ("nested", "a tool called by a tool", "X09", flow.nested),
    ("re-entrant", "a tool that calls itself", "X09", flow.re_entrant),
    ("mutated", "arguments changed meanwhile", "X10", arguments.mutated),
    ("coerced", "values of other types", "X21", arguments.coerced),
    ("unknown-argument", "an argument too many", "X22", arguments.unknown_argument),
    ("no-arguments", "arguments left out", "X15 X22", arguments.no_arguments),
    ("raw", "entrances beside the host's", "X01", others.raw_entrances),
    ("renamed", "a tool under another's name", "X02", others.renamed),
    ("swapped", "another tool in its place", "X02 X08 X18", others.swapped),
    ("added", "a tool that came later", "X05", others.added),
    ("shadowed", "two tools of one name", "X02 X13", others.shadowed),
    ("invented", "a name that does not exist", "X20", others.invented),
    ("retried", "a host that tries again", "X11", others.retried),
    ("fallback", "a fallback that nobody guards", "X04", others.fallen_back),
    ("replayed", "one call made twice", "X52", others.replayed),
    ("bare-thread", "a thread that lost its context", "X41", others.without_context),
    ("nobody", "a call without a task", "X41", others.nobody),
    ("lists", "what is offered and what can be called", "X16", others.lists),
)


def trials(driver: Driver) -> list[Trial]:
    """Everything that is tried on a guard."""
    failures = [
        Trial(name, title, tuple(attacks.split()), ask) for name, title, attacks, ask in _FAILURES
    ]
    return [*cells(driver), *failures]
