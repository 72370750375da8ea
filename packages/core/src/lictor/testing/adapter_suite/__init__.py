"""Does a guard really intercept every path? One suite for every guard of every host.

A `Driver` makes tools of its host, guards them and calls them by every path; the suite asks all of
them the same questions. Nothing is assumed about a guard but that it asks before it lets a call
through; every body that runs is counted, and compared with what the guard was asked.

    from lictor.testing.adapter_suite import run
    report = run(Driver())
    print(report.table())
"""

from __future__ import annotations

from lictor.testing.adapter_suite.driver import Driver, Missing, Probe, Session
from lictor.testing.adapter_suite.report import Report, run
from lictor.testing.adapter_suite.trial import Broken, Result, Trial
from lictor.testing.adapter_suite.trials import trials
from lictor.testing.adapter_suite.world import Call, World

__all__ = [
    "Broken",
    "Call",
    "Driver",
    "Missing",
    "Probe",
    "Report",
    "Result",
    "Session",
    "Trial",
    "World",
    "run",
    "trials",
]
