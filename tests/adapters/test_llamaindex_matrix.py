"""What the adapter suite does not ask of LlamaIndex: values, forms of a denial, and copies.

Every shape on every path, one decision an attempt, no body without one: test_adapter_suite.py.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("llama_index")

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.tools import ToolOutput
from llama_index.core.tools.tool_spec.base import BaseToolSpec
from llama_index.core.workflow import Context

from lictor.testing import DenyAll
from lictor.testing.adapter_suite import World as Suite
from lictor_llamaindex import definition, guard, guard_agent
from lictor_llamaindex.testing import Script, calls, known
from lictor_llamaindex.testing.tools import SHAPES, TEXT

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"  # of the host: it looks at every attribute of an agent
)


def called(copy: Any, gate: Any, arguments: dict[str, Any]) -> ToolOutput:
    """What an agent's tool says; only there every shape can be called."""

    async def go() -> Any:
        script = Script(calls((copy.metadata.name, arguments)))
        agent = guard_agent(FunctionAgent(tools=[copy], llm=script.model()), gate)
        return (await agent.run("go")).tool_calls[-1].tool_output

    output: ToolOutput = asyncio.run(go())
    return output


@pytest.mark.parametrize("shape", sorted(SHAPES.keys() - TEXT))
def test_what_runs_is_what_the_schema_makes_of_what_the_model_wrote(
    world: Callable[..., Any], shape: str
) -> None:
    suite = Suite()
    tool = SHAPES[shape]("act", suite.body("act"))
    made = world(known(tool))

    with made.task(tools=None):
        output = called(guard(tool, made.gate), made.gate, {"n": "3"})

    assert [call.text for call in suite.ran] == ['{"n": 3}']
    assert "ran act" in output.content
    assert not output.is_error
    assert made.outcomes() == ["done"]


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_a_denial_is_marked_as_an_error_and_has_no_raw_output(
    world: Callable[..., Any], shape: str
) -> None:
    suite = Suite()
    tool = SHAPES[shape]("act", suite.body("act"))
    made = world(known(tool), policy=DenyAll())

    with made.task(tools=None):
        arguments = {"input": "3"} if shape in TEXT else {"n": 3}
        output = called(guard(tool, made.gate), made.gate, arguments)

    assert suite.ran == []
    assert output.is_error
    assert output.content.startswith("This is not permitted.")
    assert output.raw_output is None
    assert made.decisions() == ["deny:no_permit"]


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_a_copy_is_of_the_same_class_and_schema_and_the_original_is_left_alone(
    world: Callable[..., Any], shape: str
) -> None:
    tool = SHAPES[shape]("act", Suite().body("act"))
    before = dict(vars(tool))
    made = world(known(tool))
    copy = guard(tool, made.gate)

    assert isinstance(copy, type(tool))
    assert copy.metadata.get_parameters_dict() == tool.metadata.get_parameters_dict()
    assert vars(tool) == before
    assert guard(tool, made.gate) is copy
    assert guard(copy, made.gate) is copy
    assert definition(tool).pin == definition(SHAPES[shape]("act", Suite().body("act"))).pin


def act(n: int) -> str:
    """Acts."""
    return f"ran {n}"


class Spec(BaseToolSpec):
    spec_functions = ["look"]  # noqa: RUF012

    def look(self, n: int) -> str:
        """Looks."""
        return act(n)


def test_a_spec_and_a_function_become_tools(world: Callable[..., Any]) -> None:
    made = world(known(Spec().to_tool_list()[0]))
    plain = SHAPES["class"]("plain", Suite().body("plain"))

    assert [each.metadata.name for each in guard(Spec(), made.gate)] == ["look"]
    assert [each.metadata.name for each in guard([act, plain], made.gate)] == ["act", "plain"]


async def seize(ctx: Context, to: str) -> str:
    """Gives the word to an agent, as the host's own hand-off does."""
    await ctx.store.set("current_agent_name", to)
    return "seized"


def pay(n: int) -> str:
    """Pays."""
    return act(n)


@pytest.mark.parametrize(
    ("to", "granted", "reason"),
    [("bot", ["pay"], "permit"), ("bot", [], "grant_scope"), ("stranger", ["pay"], "grant_scope")],
)
def test_a_tool_that_gives_the_word_to_the_first_agent_gives_the_tasks_authority_and_no_more(
    world: Callable[..., Any], to: str, granted: list[str], reason: str
) -> None:
    llm = Script(calls(("seize", {"to": to})), calls(("pay", {"n": 1}), ids=["c2"])).model()
    agents: list[Any] = [
        FunctionAgent(name=name, description=name, tools=[seize, pay], llm=llm)
        for name in ("bot", "stranger")
    ]
    made = world(known(seize), known(pay, "transfer"))
    flow = guard_agent(AgentWorkflow(agents, root_agent="bot"), made.gate)

    async def go() -> None:
        ctx: Context = Context(flow)
        await ctx.store.set("current_agent_name", "stranger")
        await flow.run("go", ctx=ctx)

    with made.task(tools=[*granted, "seize"]):
        asyncio.run(go())

    assert [line["code"] for line in made.lines("decision")] == ["permit", reason]
