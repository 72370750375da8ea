"""Every shape of LlamaIndex tool on every path: one decision an attempt, no body without one."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("llama_index")

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.response.schema import Response
from llama_index.core.llms import ChatMessage
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import (
    AsyncBaseTool,
    BaseTool,
    FunctionTool,
    QueryEngineTool,
    RetrieverTool,
    ToolMetadata,
    ToolOutput,
)
from llama_index.core.tools.calling import acall_tool, call_tool
from llama_index.core.tools.tool_spec.base import BaseToolSpec
from llama_index.core.tools.types import adapt_to_async_tool
from llama_index.core.workflow import Context
from pydantic import BaseModel, Field

from lictor.testing import DenyAll
from lictor_llamaindex import definition, guard, guard_agent
from lictor_llamaindex.testing import Script, calls, known

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"  # of the host: it looks at every attribute of an agent
)
RAN: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> Iterator[None]:
    RAN.clear()
    yield
    RAN.clear()


# -- shapes ---------------------------------------------------------------------------------------


def act(n: int) -> str:
    """Acts."""
    RAN.append(n)
    return f"ran {n}"


async def aact(n: int) -> str:
    """Acts."""
    return act(n)


def field(n: int = Field(description="which")) -> str:
    """Acts."""
    return act(n)


def with_context(ctx: Context, n: int) -> str:
    """Acts."""
    assert isinstance(ctx, Context)
    return act(n)


def with_partial(n: int, user: str) -> str:
    """Acts."""
    assert user == "alice"
    return act(n)


class Number(BaseModel):
    n: int


class Plain(BaseTool):
    @property
    def metadata(self) -> ToolMetadata:
        return ToolMetadata("Acts.", "plain", Number)

    def __call__(self, n: Any) -> ToolOutput:
        return ToolOutput("plain", act(n), raw_output=None, raw_input={})


class Both(AsyncBaseTool):
    @property
    def metadata(self) -> ToolMetadata:
        return ToolMetadata("Acts.", "both", Number)

    def call(self, n: int) -> ToolOutput:
        return ToolOutput("both", act(n), raw_output=None, raw_input={})

    async def acall(self, n: int) -> ToolOutput:
        return self.call(n)


class Calling(Both):
    def __call__(self, n: int) -> ToolOutput:
        return self.call(n=n)


class Wrapped(FunctionTool):
    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        return super().call(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        return await super().acall(*args, **kwargs)


class Engine(CustomQueryEngine):
    def custom_query(self, query_str: str) -> Response:
        RAN.append(int(query_str))
        return Response(f"ran {query_str}")


class Finding(BaseRetriever):
    def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        RAN.append(int(query_bundle.query_str.rsplit(maxsplit=1)[-1]))
        return [NodeWithScore(node=TextNode(text="ran 3"), score=1.0)]


class Spec(BaseToolSpec):
    spec_functions = ["act"]  # noqa: RUF012

    def act(self, n: int) -> str:
        """Acts."""
        return act(n)


SHAPES: dict[str, Callable[[], Any]] = {
    "sync": lambda: FunctionTool.from_defaults(act),
    "async": lambda: FunctionTool.from_defaults(async_fn=aact, name="act"),
    "both": lambda: FunctionTool.from_defaults(act, async_fn=aact),
    "field": lambda: FunctionTool.from_defaults(field),
    "schema": lambda: FunctionTool.from_defaults(act, fn_schema=Number),
    "partial": lambda: FunctionTool.from_defaults(with_partial, partial_params={"user": "alice"}),
    "callback": lambda: FunctionTool.from_defaults(act, callback=lambda found: f"{found}!"),
    "context": lambda: FunctionTool.from_defaults(with_context),
    "subclass": lambda: Wrapped.from_defaults(act),
    "plain": Plain,
    "custom": Both,
    "calling": Calling,
    "query": lambda: QueryEngineTool.from_defaults(Engine(), name="query", description="Asks."),
    "retriever": lambda: RetrieverTool.from_defaults(Finding(), name="find", description="Finds."),
    "spec": lambda: Spec().to_tool_list()[0],
}
BY_AGENT_ONLY = {"context"}


def arguments(shape: str) -> dict[str, Any]:
    """What a model would send for 3."""
    return {"input": "3"} if shape in ("query", "retriever") else {"n": "3"}


# -- paths ----------------------------------------------------------------------------------------


def name_of(copy: Any) -> str:
    return str(copy.metadata.name)


async def by_agent(copy: Any, shape: str, gate: Any) -> Any:
    script = Script(calls((name_of(copy), arguments(shape))))
    agent = guard_agent(FunctionAgent(tools=[copy], llm=script.model()), gate)
    return (await agent.run("go")).tool_calls[-1].tool_output


async def by_bare_agent(copy: Any, shape: str, gate: Any) -> Any:
    script = Script(calls((name_of(copy), arguments(shape))))
    agent = FunctionAgent(tools=[copy], llm=script.model(), streaming=False)
    return (await agent.run("go")).tool_calls[-1].tool_output


async def by_workflow(copy: Any, shape: str, gate: Any) -> Any:
    script = Script(calls((name_of(copy), arguments(shape))))
    agent = AgentWorkflow([FunctionAgent(tools=[copy], llm=script.model())])
    return (await guard_agent(agent, gate).run("go")).tool_calls[-1].tool_output


async def by_react(copy: Any, shape: str, gate: Any) -> Any:
    written = str(arguments(shape)).replace("'", '"')
    said = f"Thought: go\nAction: {name_of(copy)}\nAction Input: {written}"
    script = Script(
        ChatMessage(role="assistant", content=said),
        ChatMessage(role="assistant", content="Thought: I can answer.\nAnswer: done"),
    )
    agent = guard_agent(ReActAgent(tools=[copy], llm=script.model(), streaming=False), gate)
    return (await agent.run("go")).tool_calls[-1].tool_output


async def by_prediction(copy: Any, shape: str, gate: Any) -> Any:
    model = Script(calls((name_of(copy), arguments(shape)))).model()
    return (await model.apredict_and_call([copy], "go")).sources[0]


PATHS: dict[str, Callable[[Any, str, Any], Any]] = {
    "call": lambda c, s, g: c.call(**arguments(s)),
    "called": lambda c, s, g: c(**arguments(s)),
    "positional": lambda c, s, g: c(*arguments(s).values()),
    "call_tool": lambda c, s, g: call_tool(c, arguments(s)),
    "adapted": lambda c, s, g: adapt_to_async_tool(c).call(*arguments(s).values()),
    "predict": lambda c, s, g: (
        Script(calls((name_of(c), arguments(s)))).model().predict_and_call([c], "go").sources[0]
    ),
    "acall": lambda c, s, g: asyncio.run(c.acall(**arguments(s))),
    "acall_tool": lambda c, s, g: asyncio.run(acall_tool(c, arguments(s))),
    "agent": lambda c, s, g: asyncio.run(by_agent(c, s, g)),
    "bare_agent": lambda c, s, g: asyncio.run(by_bare_agent(c, s, g)),
    "workflow": lambda c, s, g: asyncio.run(by_workflow(c, s, g)),
    "react": lambda c, s, g: asyncio.run(by_react(c, s, g)),
    "apredict": lambda c, s, g: asyncio.run(by_prediction(c, s, g)),
}
AGENTS = {"agent", "bare_agent", "workflow", "react"}
CASES = [(s, p) for s in SHAPES for p in PATHS if s not in BY_AGENT_ONLY or p in AGENTS]


@pytest.mark.parametrize(("shape", "path"), CASES)
def test_an_allowed_call_is_decided_once_and_runs_once_on_what_its_schema_makes_of_it(
    world: Callable[..., Any], shape: str, path: str
) -> None:
    tool = SHAPES[shape]()
    made = world(known(tool))
    copy = guard(tool, made.gate)

    with made.task(tools=None):
        output = PATHS[path](copy, shape, made.gate)

    assert RAN == [3]
    assert type(RAN[0]) is int
    assert "ran 3" in output.content
    assert not output.is_error
    assert made.decisions() == ["allow:permit"]
    assert made.outcomes() == ["done"]


@pytest.mark.parametrize(("shape", "path"), CASES)
def test_a_denied_call_is_decided_once_and_is_a_value(
    world: Callable[..., Any], shape: str, path: str
) -> None:
    tool = SHAPES[shape]()
    made = world(known(tool), policy=DenyAll())
    copy = guard(tool, made.gate)

    with made.task(tools=None):
        output = PATHS[path](copy, shape, made.gate)

    assert RAN == []
    assert output.is_error
    assert output.content.startswith("This is not permitted.")
    assert output.raw_output is None
    assert made.decisions() == ["deny:no_permit"]


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_a_copy_is_of_the_same_class_and_schema_and_the_original_is_left_alone(
    world: Callable[..., Any], shape: str
) -> None:
    tool = SHAPES[shape]()
    before = dict(vars(tool))
    made = world(known(tool))
    copy = guard(tool, made.gate)

    assert isinstance(copy, type(tool))
    assert copy.metadata.get_parameters_dict() == tool.metadata.get_parameters_dict()
    assert vars(tool) == before
    assert guard(tool, made.gate) is copy
    assert guard(copy, made.gate) is copy
    assert definition(tool).pin == definition(SHAPES[shape]()).pin


def test_a_spec_and_a_function_become_tools(world: Callable[..., Any]) -> None:
    made = world(known(Spec().to_tool_list()[0]))

    assert [name_of(each) for each in guard(Spec(), made.gate)] == ["act"]
    assert [name_of(each) for each in guard([act, Plain()], made.gate)] == ["act", "plain"]
