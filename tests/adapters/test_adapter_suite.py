"""Every adapter of ours holds in every trial; a host that nobody guards does not."""

from __future__ import annotations

import pytest

from lictor.testing.adapter_suite import Driver, Trial, trials
from lictor_langchain.testing.driver import Driver as LangChain
from lictor_langchain.testing.host import LangChain as Unguarded

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"  # `as_tool` is a beta
    ),
]
OURS: dict[str, Driver] = {"langchain": LangChain()}
APPLY = {  # trials of each host that must not become "not applicable" unnoticed
    "langchain": {"nobody", "replayed", "raw", "renamed", "swapped", "added", "shadowed"}
    | {"retried", "fallback", "lists", "record-lost", "cancelled", "together"},
}


def cases() -> list[tuple[str, Trial]]:
    return [(name, trial) for name, driver in OURS.items() for trial in trials(driver)]


@pytest.mark.parametrize(
    ("name", "trial"), cases(), ids=[f"{name}-{trial.id}" for name, trial in cases()]
)
def test_our_adapter_holds(name: str, trial: Trial) -> None:
    result = trial.run(OURS[name])

    assert result.state != "broken", result.text
    if trial.part == "failures" and trial.id in APPLY[name]:
        assert result.state == "held", result.text


@pytest.mark.parametrize("trial", [t for t in trials(Unguarded()) if t.part == "failures"])
def test_the_suite_notices_that_nobody_guards(trial: Trial) -> None:
    result = trial.run(Unguarded())

    assert result.state != "held" or trial.id == "no-arguments"  # the host itself refuses these


@pytest.mark.parametrize("path", Unguarded.paths)
def test_the_suite_notices_a_path_that_nobody_guards(path: str) -> None:
    found = [t for t in trials(Unguarded()) if t.cell[0] == "schema" and t.cell[1] == path]

    assert {trial.run(Unguarded()).state for trial in found} <= {"broken", "not applicable"}
