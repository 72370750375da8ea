"""`lictor attack` on an agent of several parts: no tool of any hides behind another's name."""
# No postponed annotations: LlamaIndex does not recognise a `Context` written as text.

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain")
pytest.importorskip("llama_index")

from langchain_core.tools import StructuredTool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langsmith.run_helpers import tracing_context
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.tools import FunctionTool, QueryEngineTool
from llama_index.core.workflow import Context

import lictor_langchain
import lictor_llamaindex
from lictor import Denied
from lictor.attack.lab import Recorder, Target
from lictor.gate import Gate
from lictor.testing import AGENT, USER, gate_for
from lictor.testing.adapter_suite import Probe, World
from lictor_langchain.attack import target
from lictor_langchain.testing.host import LangChain
from lictor_langchain.testing.tools import ASYNC_ONLY
from lictor_llamaindex.attack import target as target_of_llamaindex
from lictor_llamaindex.testing import Script, known

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"  # of LlamaIndex: it looks at every attribute of an agent
)


def look(n: int) -> str:
    """Looks."""
    return str(n)


def graph(*parts: Any) -> Any:
    built = StateGraph(MessagesState)
    for number, part in enumerate(parts):
        built.add_node(f"n{number}", part)
        built.add_edge(START, f"n{number}")
    return built.compile()


@pytest.fixture
def gate(tmp_path: Path) -> Any:
    made = gate_for(tmp_path, [])
    yield made
    made.close()


def of_langchain(gate: Gate, server: str = "local") -> Any:
    return lictor_langchain.guard(StructuredTool.from_function(look), gate, server=server)


def found(agent: Any) -> Target:
    made = target(agent)
    assert made is not None
    return made


def test_an_unguarded_tool_is_told_of_though_a_guarded_one_has_its_name(gate: Gate) -> None:
    bare = ToolNode([StructuredTool.from_function(look)])

    assert found(graph(bare, ToolNode([of_langchain(gate)]))).unguarded == ("look",)
    assert found(graph(ToolNode([of_langchain(gate)]), bare)).unguarded == ("look",)


def test_an_unguarded_tool_of_an_agent_within_the_agent_is_told_of(gate: Gate) -> None:
    inner = graph(ToolNode([StructuredTool.from_function(look)]))
    other = StructuredTool.from_function(look, name="other")

    seen = found(graph(ToolNode([lictor_langchain.guard(other, gate)]), inner))

    assert seen.unguarded == ("look",)
    assert [str(tool.key) for tool in seen.tools] == ["local/other"]


def test_of_two_tools_with_one_name_the_first_is_tried_and_the_other_named(gate: Gate) -> None:
    nodes = (ToolNode([of_langchain(gate, server)]) for server in ("one", "two"))

    seen = found(graph(*nodes))

    assert [str(tool.key) for tool in seen.tools] == ["one/look"]
    assert [str(tool.key) for tool in seen.untried] == ["two/look"]
    assert met(seen) == {"one/look"}


@pytest.mark.parametrize("shape", LangChain.shapes)
def test_an_entrance_that_is_tried_would_lead_to_the_body(shape: str) -> None:
    host, world = LangChain(), World()
    with host.open(world, Probe(shape=shape)) as session:
        for label, enter in session.raw("act").items():
            world.ran.clear()
            try:
                enter(host.arguments(shape, 3))
            except NotImplementedError:  # the host's word for "asynchronous only"
                assert label == "_run"
                assert shape in ASYNC_ONLY
            else:
                assert len(world.ran) == 1, label


def test_the_hosts_own_tracing_is_told_of_no_attack(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracers: list[object] = []
    monkeypatch.setattr(
        "langchain_core.tracers.langchain.LangChainTracer.__init__",
        lambda self, *args, **more: tracers.append(self),
    )
    seen = found(graph(ToolNode([of_langchain(gate)])))

    with tracing_context(enabled=True), seen.staged(Recorder()):
        assert seen.call("look", {"n": 1}, "c1").startswith("This tool has not been reviewed")

    assert tracers == []


def test_in_a_workflow_the_first_of_a_name_is_tried_by_every_entrance(gate: Gate) -> None:
    members = [
        FunctionAgent(
            name=name,
            description="Acts.",
            can_handoff_to=[],
            llm=Script().model(),
            tools=[lictor_llamaindex.guard(FunctionTool.from_defaults(look), gate, server=name)],
        )
        for name in ("one", "two")
    ]
    workflow = AgentWorkflow(list(members), root_agent="one")

    seen = target_of_llamaindex(lictor_llamaindex.guard_agent(workflow, gate))

    assert seen is not None
    assert [str(tool.key) for tool in seen.tools] == ["one/look"]
    assert [str(tool.key) for tool in seen.untried] == ["two/look"]
    assert met(seen) == {"one/look"}


def met(seen: Target) -> set[str]:
    """Which tools were refused, by every entrance."""
    refused = set()
    for enter in seen.raw("look").values():
        with pytest.raises(Denied) as denied:
            enter({"n": 1})
        refused.add(str(denied.value.decision.tool))
    return refused


def on_a_page(ctx: Context, page: int, note: str, line: int = 0) -> str:
    """Looks."""
    return note


class Notes(CustomQueryEngine):
    def custom_query(self, query_str: str) -> str:
        return query_str


@pytest.mark.parametrize(
    ("plain", "arguments"),
    [
        (FunctionTool.from_defaults(on_a_page), {"note": "x", "page": 1}),
        (FunctionTool.from_defaults(on_a_page, partial_params={"page": 2}), {"note": "x"}),
        (QueryEngineTool.from_defaults(Notes(), name="on_a_page"), {"input": "x"}),
    ],
    ids=["context", "partial", "engine"],
)
def test_an_entrance_of_llamaindex_that_is_tried_would_lead_to_the_body(
    tmp_path: Path, plain: Any, arguments: dict[str, Any]
) -> None:
    gate = gate_for(tmp_path, [known(plain)])
    tool = lictor_llamaindex.guard(plain, gate)
    seen = target_of_llamaindex(FunctionAgent(tools=[tool], llm=Script().model()))
    assert seen is not None
    recorder = Recorder()

    with gate, gate.task(agent=AGENT, on_behalf_of=USER), seen.staged(recorder):
        for enter in seen.raw("on_a_page").values():
            enter(arguments)

    assert len(recorder.ran) == len(seen.raw("on_a_page")) > 1


def test_a_run_that_is_left_ends_and_its_answer_is_told(gate: Gate) -> None:
    tool = lictor_llamaindex.guard(FunctionTool.from_defaults(look), gate)
    agent = lictor_llamaindex.guard_agent(
        FunctionAgent(name="one", tools=[tool], llm=Script().model()), gate
    )
    seen = target_of_llamaindex(agent)
    assert seen is not None

    with seen.staged(Recorder()):
        assert seen.call("look", {"n": 1}, "c1").startswith("This tool has not been reviewed")
