"""A question that nobody has answered yet: the host's run waits, and is decided anew."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("llama_index")

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ToolCallResult
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context

from lictor.approval import settle
from lictor.attempt import RecordKey
from lictor.ports import Answer, Reply
from lictor.testing import UnsafeApprovals, UnsafeScripted
from lictor_llamaindex import GateAnswer, GateAsk, guard, guard_agent
from lictor_llamaindex.testing import Script, calls, known

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the host
RAN: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> Iterator[None]:
    RAN.clear()
    yield
    RAN.clear()


def pay(n: int) -> str:
    """Pays."""
    RAN.append(n)
    return f"paid {n}"


def asks_first(query: Any) -> Answer:
    if "confirm:user" in query.met:
        return Answer(True, "permit", ("p",))
    return Answer(False, "ask_required", asks=("confirm:user",))


def asking(world: Callable[..., Any], *more: Any, **options: Any) -> Any:
    return world(
        known(pay, "transfer", target=("n",)),
        *more,
        policy=UnsafeScripted(options.pop("policy", asks_first)),
        approvals=UnsafeApprovals("pending"),
        **options,
    )


def answer(made: Any, call_id: str, state: str = "granted") -> int:
    """Settles what is pending of a call, as `lictor watch` does."""
    made.flush()
    reply = Reply(state, by="alice", channel="test", assurance="asserted")
    key = RecordKey(b"k" * 32, "test")  # that of `gate_for`
    rows = [row for row in made.store.asks() if row.call == call_id]
    return sum(settle(made.store, row, reply, key.digest, time.time()) for row in rows)


def agent_for(gate: Any, *wanted: Any, workflow: bool = False) -> Any:
    agent = FunctionAgent(tools=[pay], llm=Script(calls(*wanted)).model(), streaming=False)
    return guard_agent(AgentWorkflow([agent]) if workflow else agent, gate)


async def told(handler: Any, count: int, kinds: Any = GateAsk) -> list[Any]:
    found: list[Any] = []
    async for event in handler.stream_events():
        if isinstance(event, kinds):
            found.append(event)
            if len(found) == count:
                break
    return found


@pytest.mark.asyncio
@pytest.mark.parametrize("workflow", [False, True])
@pytest.mark.parametrize("state", ["granted", "rejected"])
async def test_a_run_waits_for_a_person_and_goes_on_as_he_said(
    world: Callable[..., Any], workflow: bool, state: str
) -> None:
    made = asking(world)
    agent = agent_for(made.gate, ("pay", {"n": 5}), workflow=workflow)

    with made.task(tools=["pay"]):
        handler = agent.run("go")
        (ask,) = await told(handler, 1)
        assert (ask.tool, RAN) == ("local/pay", [])
        assert answer(made, ask.call_id, state) == 1
        handler.ctx.send_event(GateAnswer(call_id=ask.call_id))
        run = await handler

    output = run.tool_calls[0].tool_output
    assert output.is_error is (state != "granted")
    assert RAN == ([5] if state == "granted" else [])
    last = made.decisions()[-1]
    assert last == ("allow:permit" if state == "granted" else "deny:ask_rejected")


@pytest.mark.asyncio
async def test_an_event_that_nobody_has_answered_for_releases_nothing(
    world: Callable[..., Any],
) -> None:
    made = asking(world)
    agent = agent_for(made.gate, ("pay", {"n": 5}))

    with made.task(tools=["pay"]):
        handler = agent.run("go")
        (ask,) = await told(handler, 1)
        handler.ctx.send_event(GateAnswer(call_id=ask.call_id))
        (again,) = await told(handler, 1)
        assert RAN == []
        assert again.call_id == ask.call_id
        answer(made, ask.call_id)
        handler.ctx.send_event(GateAnswer(call_id=ask.call_id))
        run = await handler

    assert [each.tool_output.content for each in run.tool_calls] == ["paid 5"]
    assert RAN == [5]


@pytest.mark.asyncio
async def test_an_answer_releases_its_own_call_only(world: Callable[..., Any]) -> None:
    made = asking(world)
    agent = agent_for(made.gate, ("pay", {"n": 1}), ("pay", {"n": 1000}))

    with made.task(tools=["pay"]):
        handler = agent.run("go")
        asks = await told(handler, 2)
        assert len({each.call_id for each in asks}) == 2
        rows = {row.call: row for row in made.store.asks()}
        assert rows.keys() == {each.call_id for each in asks}
        small = asks[0].call_id
        answer(made, small)
        handler.ctx.send_event(GateAnswer(call_id=small))
        await told(handler, 1, ToolCallResult)
        assert len(RAN) == 1
        handler.ctx.send_event(GateAnswer(call_id=small))  # once more: no step waits for it
        other = asks[1].call_id
        answer(made, other, "rejected")
        handler.ctx.send_event(GateAnswer(call_id=other))
        run = await handler

    assert sorted(made.decisions()) == [
        "allow:permit",
        "ask:ask_required",
        "ask:ask_required",
        "deny:ask_rejected",
    ]
    assert len(RAN) == 1
    assert sorted(each.tool_output.is_error for each in run.tool_calls) == [False, True]


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:Skipping serialization")  # of the memory, by the host
async def test_a_run_that_was_put_away_goes_on_in_a_resumed_task(
    world: Callable[..., Any],
) -> None:
    made = asking(world)
    agent = agent_for(made.gate, ("pay", {"n": 5}))

    with made.task(tools=["pay"]) as task:
        handler = agent.run("go")
        (ask,) = await told(handler, 1)
        kept = handler.ctx.to_dict()
        memory = await handler.ctx.store.get("memory")
        await handler.cancel_run()
    assert task.state == "suspended"
    answer(made, ask.call_id)

    with made.gate.resume(task.id):
        later = agent.run(ctx=Context.from_dict(agent, kept))
        await later.ctx.store.set("memory", memory)  # the host's own serializer drops it
        later.ctx.send_event(GateAnswer(call_id=ask.call_id))
        run = await later

    assert RAN == [5]
    assert [each.tool_output.content for each in run.tool_calls] == ["paid 5"]


def test_without_a_step_to_wait_in_the_model_is_told(world: Callable[..., Any]) -> None:
    made = asking(world)
    copy = guard(FunctionTool.from_defaults(pay), made.gate)

    with made.task(tools=["pay"]):
        found = [copy.call(n=1), asyncio.run(copy.acall(n=2))]

    assert [each.content for each in found] == ["A person must agree to this first."] * 2
    assert RAN == []


HELD: list[Any] = []


async def outer(n: int) -> str:
    """Calls another."""
    return str(await HELD[0].acall(n=n))


async def sub(n: int) -> str:
    """Asks another agent."""
    return str((await HELD[0].run("go")).tool_calls[0].tool_output)


@pytest.mark.parametrize(
    ("around", "name", "wanted"),
    [
        (outer, "Agent", "A person must agree"),
        (sub, "Agent", "This task does not include"),
        (sub, "helper", "A person must agree"),
    ],
)
def test_nothing_pauses_inside_a_body(
    world: Callable[..., Any], around: Any, name: str, wanted: str
) -> None:
    def policy(query: Any) -> Answer:
        if str(query.review.key) == "local/pay":
            return asks_first(query)
        return Answer(True, "permit", ("p",))

    made = asking(world, known(around), policy=policy)
    script = Script(calls(("pay", {"n": 5})))
    inner = FunctionAgent(tools=[pay], llm=script.model(), streaming=False, name=name)
    guard_agent(inner, made.gate)
    HELD[:] = [inner if around is sub else guard(FunctionTool.from_defaults(pay), made.gate)]
    script = Script(calls((around.__name__, {"n": 5})))
    agent = guard_agent(FunctionAgent(tools=[around], llm=script.model()), made.gate)

    async def go() -> Any:
        return await asyncio.wait_for(agent.run("go"), 30)

    with made.task(tools=["pay", around.__name__]):
        run = asyncio.run(go())

    assert RAN == []
    assert run.tool_calls[0].tool_output.content.startswith(wanted)
