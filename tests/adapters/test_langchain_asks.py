"""A person has to agree: the run pauses, and goes on only with what the store says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

from lictor import Pending
from lictor.ports import Answer, Ask, Query, Reply
from lictor.testing import UnsafeApprovals, UnsafeScripted
from lictor_langchain import create_agent, guard
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


async def _apay(n: int) -> str:
    RAN.append(("both", n))
    return f"paid {n}"


def _pay(n: int) -> str:
    RAN.append(("both", n))
    return f"paid {n}"


both = StructuredTool.from_function(_pay, _apay, name="both", description="Pays, awaited or not.")


@tool
def note(n: int) -> str:
    """Writes."""
    RAN.append(("note", n))
    return f"noted {n}"


PAY = known(pay, "transfer", target=("n",))
BOTH = known(both, "transfer", target=("n",))
NOTE = known(note, "write")
ASKING = {"pay", "both"}


def asking(query: Query) -> Answer:
    """Payments need the person, everything else does not."""
    if query.review.key.name in ASKING and "confirm:user" not in query.met:
        return Answer(False, "ask_required", asks=("confirm:user",))
    return Answer(True, "permit", ("p",))


@pytest.fixture
def scene(host: Callable[..., Scene]) -> Scene:
    """Somebody can answer later: the channel itself never waits."""
    return asked(host, look, PAY, BOTH, NOTE)


def asked(host: Callable[..., Scene], *tools: Any) -> Scene:
    return host(*tools, policy=UnsafeScripted(asking), approvals=UnsafeApprovals("pending"))


def answers(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(m.status, m.text) for m in result["messages"] if isinstance(m, ToolMessage)]


def waiting(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [each.value for each in result.get("__interrupt__", ())]


@pytest.fixture(params=["invoke", "ainvoke", "stream", "batch"])
def go(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    def run(agent: Any, given: Any, config: Any = AT) -> Any:
        match request.param:
            case "invoke":
                return agent.invoke(given, config)
            case "ainvoke":
                return asyncio.run(agent.ainvoke(given, config))
            case "batch":
                return agent.batch([given], config)[0]
            case _:
                last: dict[str, Any] = {}
                found: dict[str, Any] = {}
                for mode, chunk in agent.stream(given, config, stream_mode=["values", "updates"]):
                    found |= {each.id: each for each in chunk.get("__interrupt__", ())}
                    last |= chunk if mode == "values" else {}
                if found:
                    last["__interrupt__"] = tuple(found.values())
                return last

    return run


def agent_of(scene: Scene, script: list[AIMessage], *tools: Any, **more: Any) -> Any:
    more.setdefault("checkpointer", InMemorySaver())
    return create_agent(ScriptedModel(script=script), [*tools], gate=scene.gate, **more)


# -- pause and resume -----------------------------------------------------------------------------


def test_the_run_pauses_and_goes_on_when_the_person_has_agreed(
    scene: Scene, go: Callable[..., Any]
) -> None:
    agent = agent_of(scene, [calls(("pay", {"n": 5}))], pay)

    with scene.task("pay") as task:
        paused = go(agent, GO)

    (value,) = waiting(paused)
    assert (value["kind"], value["tool"], value["tool_call_id"]) == (
        "lictor.ask",
        "local/pay",
        "c1",
    )
    assert value["text"] == "A person must agree to this first."
    assert value["decision"] == scene.lines("decision")[0]["id"]
    assert "5" not in value["text"]
    assert (task.state, answers(paused), RAN) == ("suspended", [], [])

    assert scene.answer() == 1
    with scene.gate.resume(task.id):
        done = go(agent, Command(resume=True))

    assert (RAN, answers(done)) == ([("pay", 5)], [("success", "paid 5")])
    assert scene.codes() == ["ask_required", "permit"]
    assert scene.outcomes() == ["done"]


@pytest.mark.parametrize(
    "said", [True, "approve", {"decision": "granted"}, [{"type": "approve"}]], ids=str
)
def test_what_the_run_is_resumed_with_releases_nothing(
    scene: Scene, go: Callable[..., Any], said: Any
) -> None:
    agent = agent_of(scene, [calls(("pay", {"n": 5}))], pay)

    with scene.task("pay") as task:
        first = go(agent, GO)
    with scene.gate.resume(task.id) as again:
        paused = go(agent, Command(resume=said))
        named = go(agent, Command(resume={first["__interrupt__"][0].id: said}))

    assert RAN == []
    assert [len(waiting(each)) for each in (first, paused, named)] == [1, 1, 1]
    assert again.state == "suspended"
    assert set(scene.codes()) == {"ask_required"}
    assert len(scene.lines("ask")) == 1


def test_a_run_goes_on_with_nothing_to_resume_with(scene: Scene, go: Callable[..., Any]) -> None:
    agent = agent_of(scene, [calls(("pay", {"n": 5}))], pay)

    with scene.task("pay") as task:
        go(agent, GO)
    scene.answer()
    with scene.gate.resume(task.id):
        done = go(agent, None)

    assert (RAN, answers(done)) == ([("pay", 5)], [("success", "paid 5")])


def test_a_no_reaches_the_model(scene: Scene, go: Callable[..., Any]) -> None:
    agent = agent_of(scene, [calls(("pay", {"n": 5}))], pay)

    with scene.task("pay") as task:
        go(agent, GO)
    scene.answer("rejected")
    with scene.gate.resume(task.id):
        done = go(agent, Command(resume="approve"))

    assert RAN == []
    assert answers(done)[0][0] == "error"
    assert answers(done)[0][1].startswith("The person who was asked did not agree.")
    assert done["messages"][-1].text == "done"


def test_without_resuming_the_task_nothing_goes_on(scene: Scene, go: Callable[..., Any]) -> None:
    agent = agent_of(scene, [calls(("pay", {"n": 5}))], pay)

    with scene.task("pay"):
        go(agent, GO)
    scene.answer()
    alone = go(agent, Command(resume=True))
    with scene.task("pay"):
        other = go(agent_of(scene, [calls(("pay", {"n": 5}))], pay), GO)

    assert RAN == []
    assert answers(alone)[0][1].startswith("No task is open")
    assert len(waiting(other)) == 1  # another task asks for itself


def test_without_checkpoints_it_is_a_value(scene: Scene, go: Callable[..., Any]) -> None:
    agent = agent_of(scene, [calls(("pay", {"n": 5}))], pay, checkpointer=None)

    with scene.task("pay") as task:
        done = go(agent, GO, None)

    assert answers(done) == [("error", "A person must agree to this first.")]
    assert (done["messages"][-1].text, task.state) == ("done", "suspended")


def test_a_policy_that_has_changed_meanwhile_counts(
    host: Callable[..., Scene], go: Callable[..., Any]
) -> None:
    verdicts: list[Callable[[Query], Answer]] = [asking]
    scene = host(
        PAY,
        policy=UnsafeScripted(lambda query: verdicts[-1](query)),
        approvals=UnsafeApprovals("pending"),
    )
    agent = agent_of(scene, [calls(("pay", {"n": 5}))], pay)

    with scene.task("pay") as task:
        go(agent, GO)
    scene.answer()
    verdicts.append(lambda query: Answer(False, "no_permit"))
    with scene.gate.resume(task.id):
        done = go(agent, Command(resume=True))

    assert (RAN, answers(done)[0][0]) == ([], "error")
    assert scene.codes() == ["ask_required", "no_permit"]


def test_a_checkpoint_that_was_edited_is_another_call(scene: Scene) -> None:
    agent = agent_of(scene, [calls(("pay", {"n": 5}))], pay)

    with scene.task("pay") as task:
        agent.invoke(GO, AT)
    scene.answer()
    edited = calls(("pay", {"n": 9999}))
    edited.id = agent.get_state(AT).values["messages"][-1].id
    agent.update_state(AT, {"messages": [edited]}, as_node="model")
    with scene.gate.resume(task.id) as again:
        paused = agent.invoke(None, AT)

    assert RAN == []
    assert (len(waiting(paused)), again.state) == (1, "suspended")
    assert scene.codes() == ["ask_required", "ask_required"]


def test_another_process_goes_on_where_this_one_stopped(host: Callable[..., Scene]) -> None:
    def here() -> Scene:
        return asked(host, PAY)

    first = here()
    with SqliteSaver.from_conn_string(str(first.folder / "graph.db")) as saver:
        agent = agent_of(first, [calls(("pay", {"n": 5}))], pay, checkpointer=saver)
        with first.task("pay") as task:
            agent.invoke(GO, AT)
        first.answer()
        first.gate.close()

    second = here()
    with SqliteSaver.from_conn_string(str(first.folder / "graph.db")) as saver:
        agent = agent_of(second, [], pay, checkpointer=saver)
        with second.gate.resume(task.id) as again:
            done = agent.invoke(None, AT)

    assert (RAN, answers(done), again.state) == ([("pay", 5)], [("success", "paid 5")], "ended")


def test_an_answer_is_used_once_however_often_the_run_is_replayed(scene: Scene) -> None:
    agent = agent_of(scene, [calls(("pay", {"n": 5}))], pay)

    with scene.task("pay") as task:
        agent.invoke(GO, AT)
    before = next(agent.get_state_history(AT)).config
    scene.answer()
    with scene.gate.resume(task.id) as again:
        agent.invoke(None, AT)
        replayed = agent.invoke(None, before)

    assert RAN == [("pay", 5)]
    assert len(waiting(replayed)) == 1
    assert scene.codes() == ["ask_required", "permit", "ask_required"]
    assert (scene.outcomes(), again.state) == (["done"], "suspended")


# -- several calls at once ------------------------------------------------------------------------


@pytest.mark.parametrize("payer", [pay, both], ids=["pay", "both"])
def test_each_ask_of_a_message_is_its_own_and_what_was_allowed_does_not_run_twice(
    scene: Scene, go: Callable[..., Any], payer: BaseTool
) -> None:
    name = payer.name
    wanted = [("note", {"n": 1}), (name, {"n": 2}), (name, {"n": 3}), ("look", {"n": 4})]
    agent = agent_of(scene, [calls(*wanted)], note, payer, look)

    with scene.task(name, "note", "look") as task:
        paused = go(agent, GO)

    assert sorted(RAN) == [("look", 4), ("note", 1)]
    first, second = sorted(waiting(paused), key=lambda value: str(value["tool_call_id"]))
    assert [first["tool_call_id"], second["tool_call_id"]] == ["c2", "c3"]
    assert len({each.id for each in paused["__interrupt__"]}) == 2

    scene.answer("granted", second["call_id"])
    with scene.gate.resume(task.id):
        still = go(agent, None)

    assert sorted(RAN[2:]) == [(name, 3)]
    assert [value["tool_call_id"] for value in waiting(still)] == ["c2"]
    assert len(scene.asks()) == 1

    scene.answer("granted", first["call_id"])
    with scene.gate.resume(task.id):
        done = go(agent, Command(resume={each.id: False for each in still["__interrupt__"]}))

    assert sorted(RAN[3:]) == [(name, 2)]
    assert [text for _, text in answers(done)] == ["noted 1", "paid 2", "paid 3", "saw 4"]
    assert sorted(scene.codes()) == ["ask_required"] * 3 + ["permit"] * 4
    assert scene.outcomes() == ["done"] * 4


def test_one_of_two_that_is_named_for_the_other_is_not_released(
    scene: Scene, go: Callable[..., Any]
) -> None:
    agent = agent_of(scene, [calls(("pay", {"n": 1}), ("pay", {"n": 1000}))], pay)

    with scene.task("pay") as task:
        paused = go(agent, GO)
    small = next(each for each in paused["__interrupt__"] if each.value["tool_call_id"] == "c1")
    large = next(each for each in paused["__interrupt__"] if each.value["tool_call_id"] == "c2")
    scene.answer("granted", small.value["call_id"])
    with scene.gate.resume(task.id):
        go(agent, Command(resume={large.id: "granted"}))

    assert RAN == [("pay", 1)]


def a_graph(scene: Scene, *tools: Any) -> Any:
    """A graph built by hand, whose one step makes all calls of a message."""
    built = StateGraph(MessagesState)
    built.add_node("tools", ToolNode(guard([*tools], scene.gate)))
    built.add_edge(START, "tools")
    built.add_edge("tools", END)
    return built.compile(checkpointer=InMemorySaver())


def test_a_graph_built_by_hand_pauses_too(scene: Scene, go: Callable[..., Any]) -> None:
    graph = a_graph(scene, pay)

    with scene.task("pay") as task:
        paused = go(graph, {"messages": [calls(("pay", {"n": 5}))]})
    scene.answer()
    with scene.gate.resume(task.id):
        done = go(graph, Command(resume=True))

    assert len(waiting(paused)) == 1
    assert (RAN, answers(done)) == ([("pay", 5)], [("success", "paid 5")])


def test_where_all_calls_are_one_step_an_effect_that_ran_is_not_run_again(
    scene: Scene, go: Callable[..., Any]
) -> None:
    graph = a_graph(scene, note, pay)

    with scene.task("pay", "note") as task:
        go(graph, {"messages": [calls(("note", {"n": 1}), ("pay", {"n": 5}))]})
    scene.answer()
    with scene.gate.resume(task.id):
        done = go(graph, Command(resume=True))

    # on a loop the pause may end the step while the other call is on its way, at any point of it
    assert (RAN.count(("note", 1)) <= 1, RAN.count(("pay", 5))) == (True, 1)
    assert answers(done)[0][1].startswith(("This call was already made once.", "noted 1"))
    assert answers(done)[1] == ("success", "paid 5")


# -- the tool's own pauses ------------------------------------------------------------------------


@tool
def sure(n: int) -> str:
    """Asks for itself, too."""
    RAN.append(("sure?", n))
    said = interrupt("sure?")
    RAN.append(("sure", said))
    return f"{said}"


SURE = known(sure, "read")


@pytest.mark.parametrize("named", [True, False], ids=["by id", "with nothing"])
def test_what_our_pause_is_resumed_with_does_not_answer_the_tools_own(
    host: Callable[..., Scene], go: Callable[..., Any], named: bool
) -> None:
    def once(query: Query) -> Answer:
        if "confirm:user" in query.met or ("sure?", 1) in RAN:
            return Answer(True, "permit", ("p",))
        return Answer(False, "ask_required", asks=("confirm:user",))

    scene = host(SURE, policy=UnsafeScripted(once), approvals=UnsafeApprovals("pending"))
    agent = agent_of(scene, [calls(("sure", {"n": 1}))], sure)

    with scene.task("sure") as task:
        first = go(agent, GO)
        scene.answer()
        (ours,) = first["__interrupt__"]
        second = go(agent, Command(resume={ours.id: "ours"}) if named else None)
        (theirs,) = second["__interrupt__"]
        third = go(agent, Command(resume={theirs.id: "theirs"}))

    assert task.state == "ended"
    assert (ours.value["kind"], theirs.value) == ("lictor.ask", "sure?")
    assert RAN == [("sure?", 1), ("sure?", 1), ("sure", "theirs")]
    assert answers(third) == [("success", "theirs")]


def test_an_ask_by_code_inside_a_body_does_not_pause_the_run(scene: Scene) -> None:
    """The host would run the body a second time, and the code has not asked for that."""
    inner = guard(pay, scene.gate)

    @tool
    def outer(n: int) -> str:
        """Pays by hand."""
        RAN.append("outer")
        return str(inner.invoke({"n": n}))

    scene.gate.close()
    other = Scene(
        scene.folder,
        known(outer),
        PAY,
        policy=UnsafeScripted(asking),
        approvals=UnsafeApprovals("pending"),
    )
    inner = guard(pay, other.gate)
    agent = agent_of(other, [calls(("outer", {"n": 1}))], outer)

    with other.task("outer", "pay"):
        done = agent.invoke(GO, AT)
    other.gate.close()

    assert RAN == ["outer"]
    assert answers(done) == [("success", "A person must agree to this first.")]


def test_raw_paths_raise_what_says_that_it_can_still_be_answered(scene: Scene) -> None:
    with scene.task("pay"), pytest.raises(Pending):
        guard(pay, scene.gate).func(n=1)  # type: ignore[attr-defined]


# -- waiting --------------------------------------------------------------------------------------


class Slow(UnsafeApprovals):
    """Somebody who takes his time."""

    def __init__(self, *, lasting: bool) -> None:
        super().__init__()
        self.lasting = lasting
        self.asking, self.said = threading.Event(), threading.Event()
        self.withdrawn = threading.Event()

    def answer(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        self.asking.set()
        while not self.said.wait(0.005):
            if ask.gone.is_set():
                self.withdrawn.set()
                return Reply("pending" if self.lasting else "unavailable")
        return Reply("granted", by="alice", channel="test")


def at(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}


@pytest.mark.parametrize("payer", [pay, both], ids=["sync tool", "async tool"])
def test_a_run_that_waits_for_a_person_does_not_hold_up_another(
    host: Callable[..., Scene], payer: BaseTool
) -> None:
    slow = Slow(lasting=False)
    scene = host(look, PAY, BOTH, policy=UnsafeScripted(asking), approvals=slow)
    name = payer.name
    waiting_run = agent_of(scene, [calls((name, {"n": 5}))], payer)
    other_run = agent_of(scene, [calls(("look", {"n": 1}))], look)

    async def run(agent: Any, thread: str, *tools: str) -> Any:
        async with scene.task(*tools, session=thread):
            return await agent.ainvoke(GO, at(thread))

    async def main() -> tuple[Any, Any]:
        first = asyncio.create_task(run(waiting_run, "t1", name))
        await asyncio.to_thread(slow.asking.wait, 20)
        other = await run(other_run, "t2", "look")
        assert not first.done()
        slow.said.set()
        return await first, other

    paid, looked = asyncio.run(main())

    assert RAN == [("look", 1), (name, 5)]
    assert answers(looked) == [("success", "saw 1")]
    assert answers(paid) == [("success", "paid 5")]


@pytest.mark.parametrize("payer", [pay, both], ids=["sync tool", "async tool"])
@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "passing"])
def test_a_cancelled_run_withdraws_its_question_and_starts_nothing(
    host: Callable[..., Scene], payer: BaseTool, lasting: bool
) -> None:
    slow = Slow(lasting=lasting)
    scene = host(PAY, BOTH, policy=UnsafeScripted(asking), approvals=slow)
    agent = agent_of(scene, [calls((payer.name, {"n": 5}))], payer)
    task = scene.task(payer.name)

    async def main() -> None:
        async with task:
            run = asyncio.create_task(agent.ainvoke(GO, AT))
            await asyncio.to_thread(slow.asking.wait, 20)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            assert await asyncio.to_thread(slow.withdrawn.wait, 20)
            slow.said.set()
            while not scene.lines("decision"):
                await asyncio.sleep(0)

    asyncio.run(main())

    assert RAN == []
    assert slow.asked[0].gone.is_set()
    assert scene.codes() == ["interrupted"]
    assert task.state == ("suspended" if lasting else "ended")
