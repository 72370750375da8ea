"""Calls that no task is open for run under the gate's process task, wherever they come from."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from lictor import Tool
from lictor.canonical import Json
from lictor.gate import Gate
from lictor.grant import Grant
from lictor.model import ulid
from lictor.ports import Answer, Known, Query
from lictor.task import Task
from lictor.testing import DenyAll, UnsafeAllowAll, UnsafeApprovals, UnsafeScripted
from lictor.testing.seat import Seat
from lictor_langchain import (
    GateCallbackHandler,
    GateMiddleware,
    ToolDenied,
    create_agent,
    guard,
)
from lictor_langchain.testing import Scene, ScriptedModel, calls, known

RAN: list[Any] = []
GO = {"messages": [("user", "go")]}
AT: Any = {"configurable": {"thread_id": "t1"}}


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


PAY = known(pay, "transfer", target=("n",))


def at_home(host: Callable[..., Scene], *tools: Any, **options: Any) -> tuple[Scene, Task]:
    """A gate with a process task that names everything."""
    scene = host(*tools, **options)
    names = [str(each.review.key) for each in scene.gate.catalog.known_tools()]
    task = scene.task(*names, session=None)
    scene.gate.adopt(task)
    return scene, task


def answers(result: dict[str, Any]) -> list[str]:
    return [m.text for m in result["messages"] if isinstance(m, ToolMessage)]


@pytest.fixture(params=["sync", "async", "bare thread", "pool"])
def go(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """Runs an agent in the ways in which a program without tasks does."""

    def run(agent: Any, given: Any = GO, config: Any = AT) -> Any:
        match request.param:
            case "sync":
                return agent.invoke(given, config)
            case "async":
                return asyncio.run(agent.ainvoke(given, config))
            case "pool":
                with ThreadPoolExecutor() as pool:
                    return pool.submit(agent.invoke, given, config).result(20)
            case _:
                found: list[Any] = []
                thread = threading.Thread(target=lambda: found.append(agent.invoke(given, config)))
                thread.start()
                thread.join(20)
                return found[0]

    return run


def by_task(scene: Scene) -> list[tuple[str, str, str]]:
    """Tool, reason and acting agent of each decision."""
    return [
        (str(body["tool"]), str(body["code"]), str(body["chain"][-1]))
        for body in scene.lines("decision")
    ]


def test_an_agent_runs_without_any_task(host: Callable[..., Scene], go: Callable[..., Any]) -> None:
    scene, task = at_home(host, look, PAY)
    model = ScriptedModel(script=[calls(("look", {"n": 1}), ("pay", {"n": 2}), ("made_up", {}))])

    done = go(create_agent(model, [look, pay], gate=scene.gate))

    assert sorted(RAN) == [("look", 1), ("pay", 2)]
    assert model.offered[0] == ["look", "pay"]
    assert answers(done)[2].startswith("There is no such tool.")
    told = {(line["tool"], line["code"]) for line in scene.lines("decision")}
    assert told == {
        ("local/look", "permit"),
        ("local/pay", "permit"),
        ("local/made_up", "tool_unknown"),
    }
    assert task.live


def test_arguments_that_the_host_refuses_belong_to_it_too(host: Callable[..., Scene]) -> None:
    scene, task = at_home(host, look)
    model = ScriptedModel(script=[calls(("look", {"n": "many"}))])

    create_agent(model, [look], gate=scene.gate).invoke(GO)

    assert scene.codes() == ["input_invalid"]
    assert [body["task"] for body in scene.lines("decision")] == [task.id]


def test_a_graph_built_by_hand(host: Callable[..., Scene], go: Callable[..., Any]) -> None:
    scene, _ = at_home(host, look, PAY)
    built = StateGraph(MessagesState)
    built.add_node("tools", ToolNode(guard([look, pay], scene.gate)))
    built.add_edge(START, "tools")
    built.add_edge("tools", END)

    done = go(built.compile(), {"messages": [calls(("look", {"n": 1}), ("pay", {"n": 2}))]})

    assert answers(done) == ["saw 1", "paid 2"]


def test_the_callback_may_authorize_a_read(host: Callable[..., Scene]) -> None:
    scene, _ = at_home(host, look, PAY)
    config: Any = {"callbacks": [GateCallbackHandler(scene.gate, authorize=True)]}

    assert look.invoke({"n": 1}, config) == "saw 1"
    with pytest.raises(ToolDenied):
        pay.invoke({"n": 1}, config)

    assert RAN == [("look", 1)]
    assert scene.codes() == ["permit", "tool_unguarded"]


def test_the_fifth_identical_denial_still_ends_the_run(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    scene, _ = at_home(host, look, policy=DenyAll())
    model = ScriptedModel(script=[calls(("look", {"n": 1}), ids=[f"c{n}"]) for n in range(9)])

    done = go(create_agent(model, [look], gate=scene.gate))

    assert done["messages"][-1].text.startswith("Stopped:")
    assert len(model.heard) == 5


# -- sub-agents -----------------------------------------------------------------------------------


SUB: list[Any] = []


@tool
def dispatch(what: str) -> str:
    """Has another agent do it."""
    return str(SUB[-1].invoke(GO)["messages"][-1].text)


def with_sub(scene: Scene, script: list[AIMessage], **more: Any) -> Any:
    """An agent whose tool runs another agent."""
    SUB[:] = [create_agent(ScriptedModel(script=script), [look, pay], gate=scene.gate, **more)]
    wanted = calls(("dispatch", {"what": "x"}), ids=["d1"])
    return create_agent(ScriptedModel(script=[wanted]), [dispatch], gate=scene.gate)


BOTH = [calls(("look", {"n": 1}), ("pay", {"n": 2}), ids=["s1", "s2"])]


def test_a_sub_agent_that_nobody_mapped_may_only_read(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    scene, _ = at_home(host, look, PAY, dispatch)

    go(with_sub(scene, [*BOTH]))

    assert RAN == [("look", 1)]
    assert sorted(by_task(scene)) == [
        ("local/dispatch", "permit", "agent:local/bot"),
        ("local/look", "permit", "agent:local/bot"),
        ("local/pay", "grant_scope", "agent:local/bot"),
    ]


def test_a_mapped_one_acts_under_its_own_name(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    scene, _ = at_home(host, look, PAY, dispatch)

    go(with_sub(scene, [*BOTH], middleware=[GateMiddleware(scene.gate, agent="helper")]))

    assert sorted(RAN) == [("look", 1), ("pay", 2)]
    assert sorted(by_task(scene)) == [
        ("local/dispatch", "permit", "agent:local/bot"),
        ("local/look", "permit", "agent:local/helper"),
        ("local/pay", "permit", "agent:local/helper"),
    ]


class Admitting:
    """A person who reviews whatever is called, while the program runs."""

    gate: Gate

    def __init__(self, *known_tools: Known) -> None:
        self._known = {each.review.key: each for each in known_tools}

    def review(self, tool: Tool, arguments: Mapping[str, Json], code: str, gone: Event) -> str:
        found, process = self._known[tool.key], self.gate.process
        assert process is not None
        self.gate.swap(self.gate.catalog.with_known(found), UnsafeAllowAll())
        process.regrant(granting(process.grant, found))
        return ""


def granting(grant: Grant, found: Known) -> Grant:
    from dataclasses import replace

    return replace(grant, id=ulid(), tools=(grant.tools or frozenset()) | {found.review.key})


@pytest.mark.parametrize("mapped", [False, True], ids=["unmapped", "mapped"])
def test_a_tool_that_is_reviewed_while_a_sub_agent_calls_it_runs_at_once(
    host: Callable[..., Scene], go: Callable[..., Any], mapped: bool
) -> None:
    person = Admitting(known(look), PAY)
    scene, _ = at_home(host, dispatch, reviewer=person)
    person.gate = scene.gate
    script = [
        calls(("look", {"n": 1}), ids=["s1"]),
        calls(("pay", {"n": 2}), ids=["s2"]),
        calls(("look", {"n": 3}), ids=["s3"]),
    ]
    more = {"middleware": [GateMiddleware(scene.gate, agent="helper")]} if mapped else {}

    go(with_sub(scene, script, **more))

    effect = [("pay", 2)] if mapped else []
    assert RAN == [("look", 1), *effect, ("look", 3)]


def test_what_the_main_agent_had_reviewed_is_there_for_its_next_sub_agent(
    host: Callable[..., Scene],
) -> None:
    person = Admitting(known(look), PAY)
    scene, _ = at_home(host, dispatch, reviewer=person)
    person.gate = scene.gate
    looks = [calls(("look", {"n": n}), ids=[f"s{n}"]) for n in range(2)]

    for script in looks:
        with_sub(scene, [script]).invoke(GO)
        assert guard(look, scene.gate).invoke({"n": 7}) == "saw 7"

    assert RAN == [("look", 0), ("look", 7), ("look", 1), ("look", 7)]


# -- asks -----------------------------------------------------------------------------------------


def asking(query: Query) -> Answer:
    if query.review.effectful and "confirm:user" not in query.met:
        return Answer(False, "ask_required", asks=("confirm:user",))
    return Answer(True, "permit", ("p",))


def test_a_run_pauses_under_the_process_task_and_needs_no_resumed_task(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    options = {"policy": UnsafeScripted(asking), "approvals": UnsafeApprovals("pending")}
    scene, task = at_home(host, PAY, **options)
    agent = create_agent(
        ScriptedModel(script=[calls(("pay", {"n": 5}))]),
        [pay],
        gate=scene.gate,
        checkpointer=InMemorySaver(),
    )

    paused = go(agent)
    again = go(agent, Command(resume="approve"))
    scene.answer()
    done = go(agent, None)

    assert [len(each["__interrupt__"]) for each in (paused, again)] == [1, 1]
    assert (RAN, answers(done), task.state) == ([("pay", 5)], ["paid 5"], "running")


def sub_asks(scene: Scene, **more: Any) -> tuple[Any, BaseTool]:
    script = [calls(("pay", {"n": 5}), ids=["s1"])]
    SUB[:] = [create_agent(ScriptedModel(script=script), [pay], gate=scene.gate, **more)]
    wanted = calls(("dispatch", {"what": "x"}), ids=["d1"])
    main = create_agent(
        ScriptedModel(script=[wanted]),
        [dispatch],
        gate=scene.gate,
        checkpointer=InMemorySaver(),
    )
    return main, dispatch


def test_an_ask_of_a_sub_agent_pauses_the_run_it_is_part_of(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    options = {"policy": UnsafeScripted(asking), "approvals": UnsafeApprovals("pending")}
    scene, _ = at_home(host, PAY, dispatch, **options)
    main, _ = sub_asks(scene, middleware=[GateMiddleware(scene.gate, agent="helper")])

    paused = go(main)
    scene.answer()
    done = go(main, None)

    (value,) = [each.value for each in paused["__interrupt__"]]
    assert (value["kind"], value["tool"], value["tool_call_id"]) == (
        "lictor.ask",
        "local/pay",
        "s1",
    )
    assert RAN == [("pay", 5)]
    assert answers(done) == ["done"]


def test_inside_the_body_of_an_effect_nothing_pauses(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    def only_pay(query: Query) -> Answer:
        return asking(query) if query.review.key.name == "pay" else Answer(True, "permit", ("p",))

    options = {"policy": UnsafeScripted(only_pay), "approvals": UnsafeApprovals("pending")}
    scene, _ = at_home(host, PAY, known(dispatch, "write"), **options)
    main, _ = sub_asks(scene, middleware=[GateMiddleware(scene.gate, agent="helper")])

    done = go(main)

    assert "__interrupt__" not in done
    assert RAN == []
    assert answers(done) == ["done"]
    assert scene.codes() == ["permit", "ask_required"]


PROGRAM = """
from pathlib import Path

from langchain_core.tools import tool
from lictor_langchain import Gate, create_agent
from lictor_langchain.testing import ScriptedModel, calls


@tool
def pay(n: int) -> str:
    '''Pays.'''
    return "PAID"


model = ScriptedModel(script=[calls(("pay", {"n": 5}))])
agent = create_agent(model, [pay], gate=Gate.dev(Path(__file__).parent))
print(agent.invoke({"messages": [("user", "go")]}))
"""


def test_ctrl_c_at_a_question_ends_a_run_whose_tools_run_on_other_threads(tmp_path: Path) -> None:
    program = tmp_path / "app.py"
    program.write_text(PROGRAM, encoding="utf-8")

    with Seat([sys.executable, str(program)], cwd=tmp_path) as seat:
        before = seat.modes()
        seat.until("deny once")
        seat.press("\x03")
        told = seat.rest()

        assert "KeyboardInterrupt" in told
        assert "PAID" not in told
        assert seat.modes() == before
