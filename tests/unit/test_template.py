"""Task templates: what a task of this kind may do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from lictor import ConfigError, TaskError
from lictor.model import ToolKey
from lictor.settings import TaskPart
from lictor.template import key_of, keys_of, template_of


def made(**part: Any) -> Any:
    return template_of("t", TaskPart(**part), "lictor.toml")


def test_no_tools_named_is_reading_only() -> None:  # rule 1
    assert made().tools is None
    assert made(tools=["pay"]).tools == {ToolKey("local", "pay")}


def test_a_limit_of_a_tool_that_is_not_listed_does_not_load() -> None:  # rule 2
    with pytest.raises(ConfigError, match="limits name local/pay") as caught:
        made(tools=["look"], limits={"pay": {"to": {"equals": "bob"}}})
    assert caught.value.where == "lictor.toml: tasks.t"


def test_a_bare_name_is_local(  # rule 3
) -> None:
    assert key_of("pay") == ToolKey("local", "pay")
    assert key_of("bank/a/b") == ToolKey("bank", "a/b")
    for bad in ("", "/", "Bank/x", "bank/", "bank/_", "_", "a b/c", "x" * 200, "bank/x\n"):
        with pytest.raises(TaskError):
            key_of(bad)
    with pytest.raises(TaskError, match="must be a list"):
        keys_of("pay")


@pytest.mark.parametrize("spend", ["x", "NaN", "-1", "Infinity", ""])
def test_a_spend_that_is_no_amount_does_not_load(spend: str) -> None:
    with pytest.raises(ConfigError, match="not an amount"):
        made(spend=spend)


def test_spend_is_exact() -> None:
    assert made(spend="0.10").spend == Decimal("0.10")


@pytest.mark.parametrize(
    "limits",
    [
        {"pay": {"to": {"eqals": "bob"}}},
        {"pay": {"amount": {"max": "10"}}},
        {"pay": {"amount": {}}},
        {"Bad Name/x": {}},
    ],
)
def test_a_limit_that_is_not_understood_does_not_load(limits: Any) -> None:
    with pytest.raises(ConfigError):
        made(tools=["pay"], limits=limits)
