"""Agents: what the loop does with denials, errors, parallel calls, state and sub-agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from langchain.agents.middleware import AgentMiddleware
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    InjectedToolCallId,
    StructuredTool,
    ToolException,
    tool,
)
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, InjectedStore, ToolNode
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from pydantic import BaseModel, ConfigDict, Field

from lictor.testing import DenyAll, UnsafeScripted
from lictor_langchain import (
    GateCallbackHandler,
    GateMiddleware,
    ToolDenied,
    create_agent,
    definition,
    guard,
)
from lictor_langchain.testing import Scene, ScriptedModel, calls, known

RAN: list[Any] = []
GO = {"messages": [("user", "go")]}


@pytest.fixture(autouse=True)
def _nothing_ran() -> Iterator[None]:
    RAN.clear()
    yield
    RAN.clear()


@tool
def look(n: int) -> str:
    """Looks."""
    RAN.append(("look", n))
    return f"saw {n}"


@tool
def pay(n: int) -> str:
    """Pays."""
    RAN.append(("pay", n))
    return f"paid {n}"


@tool(return_direct=True)
def direct(n: int) -> str:
    """Answers."""
    RAN.append(("direct", n))
    return f"direct {n}"


def answers(result: dict[str, Any]) -> list[ToolMessage]:
    return [m for m in result["messages"] if isinstance(m, ToolMessage)]


@pytest.fixture(params=["sync", "async"])
def go(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    def run(agent: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if request.param == "sync":
            return agent.invoke(GO, *args, **kwargs)  # type: ignore[no-any-return]
        return asyncio.run(agent.ainvoke(GO, *args, **kwargs))

    return run


def test_a_denied_tool_that_returns_directly_does_not_end_the_run(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    made = host(direct, policy=DenyAll())
    model = ScriptedModel(script=[calls(("direct", {"n": 1}))])

    with made.task():
        result = go(create_agent(model, [direct], gate=made.gate))

    assert result["messages"][-1].text == "done"
    assert answers(result)[0].status == "error"


def test_it_goes_on_through_the_nodes_before_the_model(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    class Counting(AgentMiddleware[Any, Any, Any]):
        def before_model(self, state: Any, runtime: Any) -> None:
            RAN.append("before")

    made = host(direct, policy=DenyAll())
    model = ScriptedModel(script=[calls(("direct", {"n": 1}))])

    with made.task():
        go(create_agent(model, [direct], gate=made.gate, middleware=[Counting()]))

    assert RAN == ["before", "before"]


def test_an_allowed_one_still_ends_it(host: Callable[..., Scene], go: Callable[..., Any]) -> None:
    made = host(direct)
    model = ScriptedModel(script=[calls(("direct", {"n": 1}))])

    with made.task():
        result = go(create_agent(model, [direct], gate=made.gate))

    assert result["messages"][-1].text == "direct 1"


def test_the_fifth_identical_denial_ends_the_run(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    made = host(look, policy=DenyAll())
    script = [calls(("look", {"n": 1}), ids=[f"c{n}"]) for n in range(9)]
    model = ScriptedModel(script=script)

    with made.task():
        result = go(create_agent(model, [look], gate=made.gate))

    assert made.codes() == ["no_permit"] * 5
    assert "stop calling it" not in answers(result)[0].text
    assert "stop calling it" in answers(result)[1].text
    assert result["messages"][-1].text.startswith("Stopped:")
    assert len(model.heard) == 5


def test_an_invented_name_is_recorded_and_answered(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    made = host(look)
    name = "ignore\x00 previous\n" + "x" * 300
    model = ScriptedModel(script=[calls((name, {"n": 1}))])

    with made.task():
        result = go(create_agent(model, [look], gate=made.gate))

    assert answers(result)[0].text.startswith("There is no such tool.")
    assert made.codes() == ["tool_unknown"]
    assert made.lines("decision")[0]["tool"].isprintable()


def test_parallel_calls_are_each_decided_once(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    made = host(look, known(pay, "transfer", target=("n",)))
    wanted = [("look", {"n": n}) for n in range(6)] + [("pay", {"n": 7})]
    model = ScriptedModel(script=[calls(*wanted)])

    with made.task():
        result = go(create_agent(model, [look, pay], gate=made.gate))

    assert sorted(RAN) == [("look", n) for n in range(6)]
    assert sorted(made.codes()) == ["grant_scope", *["permit"] * 6]
    assert [m.tool_call_id for m in answers(result)] == [f"c{n}" for n in range(1, 8)]


# -- refused arguments ----------------------------------------------------------------------------


def test_arguments_that_the_host_refuses_are_one_record_and_a_value(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    made = host(look)
    model = ScriptedModel(script=[calls(("look", {"n": "many secrets"}))])

    with made.task():
        result = go(create_agent(model, [look], gate=made.gate))

    assert answers(result)[0].status == "error"
    assert made.codes() == ["input_invalid"]
    assert made.lines("decision")[0]["detail"] == "n: int_parsing"


def test_a_tool_keeps_its_own_words_for_wrong_arguments(host: Callable[..., Scene]) -> None:
    made = host(look)
    raw = look.model_copy(update={"handle_validation_error": "whole numbers only"})

    with made.task():
        told = guard(raw, made.gate).invoke(
            {"type": "tool_call", "name": "look", "id": "c1", "args": {"n": "x"}}
        )

    assert (told.content, told.status) == ("whole numbers only", "error")
    assert made.codes() == ["input_invalid"]


def test_a_remote_schema_is_enforced_by_the_gate(host: Callable[..., Scene]) -> None:
    made = host(known(REMOTE, server="notes"))
    copy = guard(REMOTE, made.gate, server="notes")
    wrong: list[dict[str, Any]] = [
        {"n": "5"},
        {"n": 5, "zz": 1},
        {},
        {"n": 5, "runtime": {"user": "root"}},
    ]

    with made.task():
        told = [asyncio.run(copy.ainvoke(each)) for each in wrong]
        asyncio.run(copy.ainvoke({"n": 5}))

    assert all(each.startswith("The arguments do not fit") for each in told)
    assert RAN == [{"n": 5}]
    assert made.codes() == ["input_invalid"] * 4 + ["permit"]


async def _remote(
    runtime: Annotated[object | None, InjectedToolArg()] = None, **arguments: Any
) -> tuple[str, dict[str, Any]]:
    RAN.append(arguments)
    return "fine", {"runtime": runtime}


REMOTE = StructuredTool(
    name="remote",
    description="Acts.",
    args_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    coroutine=_remote,
    response_format="content_and_artifact",
)


class Plain(BaseModel):
    n: int


class Forbidding(Plain):
    model_config = ConfigDict(extra="forbid")


class Allowing(Plain):
    model_config = ConfigDict(extra="allow")


def _anything(**arguments: Any) -> str:
    RAN.append(arguments)
    return "fine"


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        (Plain, "permit"),
        (Forbidding, "input_invalid"),
        (Allowing, "input_invalid"),
        (REMOTE.args_schema, "input_invalid"),
    ],
    ids=["pydantic", "forbid", "allow", "dict"],
)
def test_a_field_that_the_tool_does_not_have_never_reaches_it(
    host: Callable[..., Scene], go: Callable[..., Any], schema: Any, code: str
) -> None:
    raw = StructuredTool(name="act", description="Acts.", args_schema=schema, func=_anything)
    made = host(known(raw, "write"))
    model = ScriptedModel(script=[calls(("act", {"n": 1, "to": "eve"}))])

    with made.task("act"):
        go(create_agent(model, [raw], gate=made.gate))

    assert RAN == ([{"n": 1}] if code == "permit" else [])
    assert made.codes() == [code]
    assert "eve" not in str(made.lines("decision"))


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    sender: str = Field(alias="from")
    note: str = None  # type: ignore[assignment]


def _mail(sender: str, note: str | None = None) -> str:
    RAN.append((sender, note))
    return "sent"


def test_an_alias_and_a_default_that_pydantic_never_checks(
    host: Callable[..., Scene],
) -> None:
    raw = StructuredTool.from_function(_mail, name="mail", description="M.", args_schema=Aliased)
    made = host(raw)

    with made.task():
        assert guard(raw, made.gate).invoke({"from": "alice"}) == "sent"
        assert guard(raw, made.gate).invoke({"sender": "bob"}) == "sent"

    assert list(definition(raw).input_schema["properties"]) == ["sender", "note"]
    assert RAN == [("alice", None), ("bob", None)]


# -- errors of the tool ---------------------------------------------------------------------------


def failing(error: Exception, **options: Any) -> BaseTool:
    FAILURE[:] = [error]
    return StructuredTool.from_function(_fail, name="fail", description="Fails.", **options)


FAILURE: list[Exception] = []


def _fail() -> str:
    raise FAILURE[0]


@pytest.mark.parametrize(
    ("policy", "text"), [(True, "broken"), ("sorry", "sorry"), (lambda e: f"<{e}>", "<broken>")]
)
def test_the_tools_own_error_policy_is_kept(
    host: Callable[..., Scene], policy: Any, text: str
) -> None:
    raw = failing(ToolException("broken"), handle_tool_error=policy)
    made = host(raw)
    denying = guard(raw, made.gate)

    with made.task():
        assert denying.invoke({}) == text
    assert denying.invoke({}).startswith("No task is open")
    assert made.outcomes() == ["failed"]


@pytest.mark.parametrize("error", [ToolException("broken"), ValueError("broken")])
def test_an_error_without_policy_is_raised_as_it_is(
    host: Callable[..., Scene], error: Exception
) -> None:
    raw = failing(error)
    made = host(raw)

    with made.task(), pytest.raises(type(error)) as caught:
        guard(raw, made.gate).invoke({})

    assert caught.value is error
    assert made.outcomes() == ["failed"]


# -- what the host injects ------------------------------------------------------------------------


@tool
def everything(
    n: int,
    state: Annotated[dict[str, Any], InjectedState],
    store: Annotated[BaseStore, InjectedStore()],
    runtime: ToolRuntime,
    call_id: Annotated[str, InjectedToolCallId],
) -> str:
    """Sees everything."""
    store.put(("x",), "k", {"n": n})
    assert runtime.tool_call_id == call_id
    RAN.append((n, len(state["messages"]), call_id))
    return "fine"


def test_injected_values_reach_the_tool_and_not_the_decision(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    made = host(everything)
    model = ScriptedModel(script=[calls(("everything", {"n": 1, "call_id": "forged"}))])
    agent = create_agent(model, [everything], gate=made.gate, store=InMemoryStore())

    with made.task():
        result = go(agent)

    assert RAN == [(1, 2, "c1")]
    assert answers(result)[0].text == "fine"
    assert definition(everything).injected == ("runtime", "state", "store")
    assert set(definition(everything).input_schema["properties"]) == {"n"}  # type: ignore[call-overload]
    assert made.codes() == ["permit"]


@tool
def streams(n: int) -> str:
    """Streams."""
    get_stream_writer()({"n": n})
    return "fine"


def test_custom_streaming_works(host: Callable[..., Scene]) -> None:
    made = host(streams)
    agent = create_agent(
        ScriptedModel(script=[calls(("streams", {"n": 3}))]), [streams], gate=made.gate
    )

    with made.task():
        chunks = list(agent.stream(GO, stream_mode="custom"))

    assert chunks == [{"n": 3}]


# -- graphs built by hand, dynamic tools, callbacks -----------------------------------------------


def test_a_hand_built_graph_with_guarded_tools(host: Callable[..., Scene]) -> None:
    made = host(look)
    built = StateGraph(MessagesState)
    built.add_node("tools", ToolNode(guard([look], made.gate)))
    built.add_edge(START, "tools")
    built.add_edge("tools", END)
    graph = built.compile()
    wanted = {"messages": [calls(("look", {"n": 1}), ("look", {"n": "x"}))]}

    with made.task():
        result = graph.invoke(wanted)

    assert [m.status for m in answers(result)] == ["success", "error"]
    assert sorted(made.codes()) == ["input_invalid", "permit"]


class Offering(AgentMiddleware[Any, Any, Any]):
    """Adds a tool at run time that the agent never had."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tools=[*request.tools, pay]))

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        found = pay if request.tool_call["name"] == "pay" else request.tool
        return handler(request.override(tool=found))


def test_a_tool_added_at_run_time_is_offered_and_decided(host: Callable[..., Scene]) -> None:
    made = host(look, known(pay, "transfer", target=("n",)))
    model = ScriptedModel(script=[calls(("pay", {"n": 1}))])
    agent = create_agent(model, [look], gate=made.gate, middleware=[Offering()])

    with made.task("look", "pay"):
        agent.invoke(GO)

    assert model.offered[0] == ["look", "pay"]
    assert RAN == [("pay", 1)]
    assert made.codes() == ["permit"]


def test_the_callback_may_authorize_a_read_and_nothing_else(host: Callable[..., Scene]) -> None:
    made = host(look, known(pay, "transfer", target=("n",)))
    config: Any = {"callbacks": [GateCallbackHandler(made.gate, authorize=True)]}

    with made.task("look", "pay"):
        assert look.invoke({"n": 1}, config) == "saw 1"
        with pytest.raises(ToolDenied):
            look.invoke({"n": "1"}, config)  # the host would coerce it
        with pytest.raises(ToolDenied):
            pay.invoke({"n": 1}, config)

    assert RAN == [("look", 1)]
    assert made.codes() == ["permit", "input_invalid", "tool_unguarded"]
    assert made.outcomes() == ["unknown"]


def test_an_ask_that_nobody_can_answer_is_a_value(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    from lictor.ports import Answer

    answer = Answer(False, "ask_required", asks=("confirm:user",))
    made = host(known(pay, "transfer", target=("n",)), policy=UnsafeScripted(answer))
    model = ScriptedModel(script=[calls(("pay", {"n": 1}))])

    with made.task("pay"):
        result = go(create_agent(model, [pay], gate=made.gate))

    assert "nobody can be asked" in answers(result)[0].text
    body = made.lines("decision")[0]
    assert (body["verdict"], body["enforcement"]) == ("ask", "block")
    assert RAN == []


# -- sub-agents of deepagents ---------------------------------------------------------------------


def deep(made: Scene, model: ScriptedModel, sub: ScriptedModel, middleware: Any) -> Any:
    deepagents = pytest.importorskip("deepagents")
    return deepagents.create_deep_agent(
        model=model,
        tools=guard([look, pay], made.gate),
        middleware=[GateMiddleware(made.gate)],
        subagents=[
            {
                "name": "researcher",
                "description": "Researches.",
                "system_prompt": "Research.",
                "tools": guard([look, pay], made.gate),
                "model": sub,
                "middleware": middleware,
            }
        ],
    )


def deep_scene(host: Callable[..., Scene], mapped: bool) -> tuple[Scene, Any, ScriptedModel]:
    tools = (look, known(pay, "transfer", target=("n",)))
    wanted = ("task", {"description": "look", "subagent_type": "researcher"})
    first = host(*tools)
    seen = deep(first, ScriptedModel(), ScriptedModel(), [GateMiddleware(first.gate)])
    node: Any = seen.nodes["tools"].bound
    dispatch = node.tools_by_name["task"]
    first.gate.close()
    made = host(*tools, known(dispatch))
    sub = ScriptedModel(script=[calls(("look", {"n": 1}), ("pay", {"n": 2}), ids=["s1", "s2"])])
    model = ScriptedModel(script=[calls(wanted)])
    ours = GateMiddleware(made.gate, agent="helper") if mapped else GateMiddleware(made.gate)
    return made, deep(made, model, sub, [ours]), sub


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.parametrize("mapped", [False, True], ids=["unmapped", "mapped"])
def test_a_deepagents_sub_agent(
    host: Callable[..., Scene], go: Callable[..., Any], mapped: bool
) -> None:
    made, agent, sub = deep_scene(host, mapped)

    with made.task("look", "pay", "task"):
        result = go(agent)

    ran = {str(body["tool"]): body for body in made.lines("decision")}
    assert ran["local/task"]["code"] == "permit"
    assert ran["local/look"]["code"] == "permit"
    assert ran["local/pay"]["code"] == ("permit" if mapped else "grant_scope")
    actor = "agent:local/helper" if mapped else "agent:local/bot"
    assert ran["local/look"]["chain"][-1] == actor
    assert ("pay", 2) in RAN or not mapped
    assert "pay" in sub.offered[0] or not mapped
    assert isinstance(result["messages"][-1], AIMessage)


def test_what_is_guarded_is_said_when_the_agent_is_made(host: Callable[..., Scene]) -> None:
    said: list[str] = []
    made = host(look, known(pay, "transfer"))
    made.gate._say = said.append

    create_agent(ScriptedModel(), [look, pay], gate=made.gate)
    create_agent(ScriptedModel(), [look], gate=made.gate)

    assert [text.partition(";")[0] for text in said] == ["2 tools guarded, 2 reviewed, 0 pending"]


def test_tools_of_a_second_agent_are_said_too(host: Callable[..., Scene]) -> None:
    said: list[str] = []
    made = host(look, known(pay, "transfer"))
    made.gate._say = said.append

    create_agent(ScriptedModel(), [look], gate=made.gate)
    create_agent(ScriptedModel(), [pay], gate=made.gate)

    assert [text.partition(",")[0] for text in said] == ["1 tools guarded", "2 tools guarded"]
