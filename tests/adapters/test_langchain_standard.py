"""The host's own conformance suite, on guarded tools, allowed and denied."""

from __future__ import annotations

import atexit
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, StructuredTool, tool
from langchain_tests.unit_tests import ToolsUnitTests

from lictor.testing import DenyAll, UnsafeAllowAll
from lictor_langchain import guard
from lictor_langchain.testing import Scene

_open = ExitStack()
atexit.register(_open.close)


def guarded(raw: BaseTool, policy: Any) -> BaseTool:
    """A guarded tool; its gate lives as long as the process."""
    folder = Path(_open.enter_context(tempfile.TemporaryDirectory()))
    scene = Scene(folder, raw, policy=policy)
    _open.callback(scene.gate.close)
    return guard(raw, scene.gate)


@tool
def add(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


@tool
async def aadd(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


class Adding(BaseTool):
    name: str = "adding"
    description: str = "Adds."

    def _run(self, a: int, b: int = 2) -> int:
        return a + b


async def _remote(**arguments: Any) -> tuple[str, None]:
    return str(sum(arguments.values())), None


REMOTE = StructuredTool(
    name="remote",
    description="Adds.",
    args_schema={
        "type": "object",
        "title": "remote",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
    coroutine=_remote,
    response_format="content_and_artifact",
)


class _Suite(ToolsUnitTests):
    raw: BaseTool = add
    policy: Any = UnsafeAllowAll

    @property
    def tool_constructor(self) -> BaseTool:  # type: ignore[override]
        return guarded(self.raw, self.policy())

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"a": 1, "b": 2}


class TestSync(_Suite):
    pass


class TestAsync(_Suite):
    raw = aadd


class TestClass(_Suite):
    raw = Adding()


class TestSyncDenied(_Suite):
    policy = DenyAll


class TestAsyncDenied(_Suite):
    raw = aadd
    policy = DenyAll


class TestClassDenied(_Suite):
    raw = Adding()
    policy = DenyAll


@pytest.mark.parametrize("raw", [add, aadd, Adding(), REMOTE], ids=lambda each: each.name)
def test_the_model_is_told_the_same_of_the_copy(raw: BaseTool) -> None:
    from langchain_core.utils.function_calling import convert_to_openai_tool

    copy = guarded(raw, UnsafeAllowAll())

    assert isinstance(copy, type(raw))
    assert type(copy).__name__ == type(raw).__name__
    assert convert_to_openai_tool(copy) == convert_to_openai_tool(raw)
    assert copy.args == raw.args
    assert copy.get_input_jsonschema() == raw.get_input_jsonschema()
    assert copy.response_format == raw.response_format
    assert json.loads(copy.model_dump_json())["name"] == json.loads(raw.model_dump_json())["name"]
