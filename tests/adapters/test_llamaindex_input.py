"""What LlamaIndex hands to tools and what it keeps to itself: forms of arguments, swallowed errors.

Ways around by arguments: tests/attacks/test_llamaindex.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("llama_index")

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.base_selector import BaseSelector, SelectorResult
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.selectors import SingleSelection
from llama_index.core.tools import FunctionTool
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import lictor
from lictor.telemetry import Telemetry
from lictor.testing import DenyAll, UnsafeAllowAll
from lictor.testing.adapter_suite import World as Suite
from lictor_llamaindex import ToolDenied, guard, guard_agent
from lictor_llamaindex.testing import Script, calls, known
from lictor_llamaindex.testing.tools import SHAPES

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"  # of the host: it looks at every attribute of an agent
)
RAN: list[Any] = []
HELD: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> Iterator[None]:
    RAN.clear()
    yield
    RAN.clear()


def note(n: int, to: str, loud: bool = False) -> str:
    """Notes."""
    RAN.append((n, to, loud))
    return "noted"


def pay(n: int) -> str:
    """Pays."""
    RAN.append(n)
    return f"paid {n}"


def run(agent: Any) -> Any:
    async def go() -> Any:
        return await agent.run("go")

    return asyncio.run(go()).tool_calls[0].tool_output


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {"n": "3", "to": "bob", "loud": "true"}),
        (("3",), {"to": "bob", "loud": True}),
        (("3", "bob"), {"loud": 1}),
        (("3", "bob", True), {}),
    ],
)
def test_positional_and_named_values_are_one_call(
    world: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    made = world(known(note, "write", target=("to",)))
    copy = guard(FunctionTool.from_defaults(note), made.gate)

    with made.task(tools=["note"]):
        copy.call(*args, **kwargs)
        asyncio.run(copy.acall(*args, **kwargs))
        copy(*args, **kwargs)
        copy.real_fn(*args, **kwargs)  # type: ignore[attr-defined]

    assert RAN == [(3, "bob", True)] * 4
    assert [type(n) for n, _, _ in RAN] == [int] * 4
    assert made.decisions() == ["allow:permit"] * 4
    assert len({line["digest"] for line in made.lines("decision")}) == 1


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("bob",), {"n": 3}),
        (("3", "bob", True, "more"), {}),
        (("3",), {}),
        ((["3"], "bob"), {}),
        (({"n": 3, "to": "bob"},), {}),
    ],
)
def test_a_mix_that_does_not_fit_runs_nothing_at_any_entry(
    world: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    made = world(known(note, "write", target=("to",)))
    copy = guard(FunctionTool.from_defaults(note), made.gate)

    with made.task(tools=["note"]):
        found = [copy.call(*args, **kwargs), asyncio.run(copy.acall(*args, **kwargs))]

    assert all(each.is_error for each in found)
    assert RAN == []
    assert made.decisions() == ["deny:input_invalid"] * 2


def test_arguments_that_come_as_text_are_decided_as_what_they_say(
    world: Callable[..., Any],
) -> None:
    made = world(known(pay, "transfer", target=("n",)))
    agent = FunctionAgent(tools=[pay], llm=Script(calls(("pay", '{"n": "3"}'))).model())

    with made.task(tools=["pay"], limits={"pay": {"n": {"min": 0, "max": 10}}}):
        output = run(guard_agent(agent, made.gate))

    assert not output.is_error
    assert RAN == [3]


def test_a_tool_that_returns_an_exception_has_failed_on_every_path(
    world: Callable[..., Any],
) -> None:
    async def broken(n: int) -> Any:
        """Breaks."""
        return ValueError("broken")

    raw = FunctionTool.from_defaults(async_fn=broken)
    made = world(known(raw))
    agent = FunctionAgent(tools=[raw], llm=Script(calls(("broken", {"n": 1}))).model())

    with made.task(tools=None):
        assert "broken" in run(guard_agent(agent, made.gate)).content
        copy: Any = guard(raw, made.gate)
        assert "broken" in copy.call(n=2).content
        assert "broken" in str(asyncio.run(copy.async_fn(n=3)))

    assert made.outcomes() == ["failed"] * 3


def around(n: int) -> str:
    """Calls another, in the thread that the host has for it."""
    RAN.append(lictor.call_id())
    return str(HELD[0].call(n=n).content)


class Own(FunctionTool):
    """A class that leads to the host's."""

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        return await super().acall(*args, **kwargs)


@pytest.mark.parametrize("kind", [FunctionTool, Own])
@pytest.mark.parametrize("where", ["body", "callback"])
def test_a_plain_function_of_an_agent_keeps_its_task_in_its_thread(
    world: Callable[..., Any], kind: type[FunctionTool], where: str
) -> None:
    if where == "body":
        raw = kind.from_defaults(around)
    else:
        raw = kind.from_defaults(pay, name="around", callback=lambda _: around(5))
    made = world(known(raw, "write"), known(pay, "transfer"))
    HELD[:] = [guard(FunctionTool.from_defaults(pay), made.gate)]
    agent = FunctionAgent(tools=[raw], llm=Script(calls(("around", {"n": 5}))).model())

    with made.task(tools=["around", "pay"]):
        assert not run(guard_agent(agent, made.gate)).is_error

    assert RAN[-1] == 5
    assert isinstance(RAN[-2], str)
    assert set(made.decisions()) == {"allow:permit"}


def careless(n: int) -> str:
    """Calls another and does not mind what comes of it."""
    try:
        return str(HELD[0].real_fn(n=n))
    except BaseException:
        return "never mind"


def test_a_body_that_swallows_a_denial_has_not_run_what_was_denied(
    world: Callable[..., Any],
) -> None:
    made = world(known(careless), known(pay, "transfer"))
    HELD[:] = [guard(FunctionTool.from_defaults(pay), made.gate)]

    with made.task(tools=["careless"]):
        output = guard(FunctionTool.from_defaults(careless), made.gate).call(n=1)

    assert output.content == "never mind"
    assert RAN == []
    assert made.decisions() == ["allow:permit", "deny:grant_scope"]
    assert made.outcomes()[-1] == "done"


class Failing(BaseEventHandler):
    """Has an error at whatever it is told; the host swallows it."""

    def handle(self, event: BaseEvent, **_: Any) -> Any:
        RAN.append("told")
        raise RuntimeError("no more")


@pytest.fixture
def failing() -> Iterator[None]:
    root = get_dispatcher()
    handler = Failing()
    root.add_event_handler(handler)
    yield
    root.event_handlers.remove(handler)


@pytest.mark.usefixtures("failing")
def test_what_a_handler_of_the_hosts_events_does_decides_nothing(
    world: Callable[..., Any],
) -> None:
    made = world(known(pay, "transfer"), known(note))
    llm = Script(calls(("pay", {"n": 1}), ("note", {"n": 2, "to": "bob"}))).model()
    agent = guard_agent(FunctionAgent(tools=[pay, note], llm=llm), made.gate)

    with made.task(tools=None):
        assert run(agent).is_error

    assert "told" in RAN
    assert [each for each in RAN if each != "told"] == [(2, "bob", False)]
    assert sorted(made.decisions()) == ["allow:permit", "deny:grant_scope"]


@pytest.mark.parametrize("shape", ["query-engine", "retriever"])
def test_what_an_engine_reads_gives_the_session_its_labels_and_sources(
    world: Callable[..., Any], shape: str
) -> None:
    tool = SHAPES[shape]("ask", Suite().body("ask"))
    produces, sources = frozenset({"untrusted"}), frozenset({"outsiders"})
    made = world(known(tool, produces=produces, sources=sources))

    with made.task(tools=None, session="s"):
        output: Any = guard(tool, made.gate).call("what is new")

    assert not output.is_error
    row = made.store.session("local", "s")
    assert row is not None
    assert (set(row.labels), set(row.sources)) == ({"untrusted"}, {"outsiders"})


class First(BaseSelector):
    """Always takes the first."""

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: Any) -> None: ...

    def _select(self, choices: Any, query: Any) -> SelectorResult:
        return SelectorResult(selections=[SingleSelection(index=0, reason="r")])

    async def _aselect(self, choices: Any, query: Any) -> SelectorResult:
        return self._select(choices, query)


class Asking(BaseQuestionGenerator):
    """Always asks the same."""

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: Any) -> None: ...

    def generate(self, tools: Any, query: Any) -> list[SubQuestion]:
        return [SubQuestion(sub_question="what", tool_name="ask")]

    async def agenerate(self, tools: Any, query: Any) -> list[SubQuestion]:
        return self.generate(tools, query)


def router(tool: Any) -> Any:
    return RouterQueryEngine(First(), [tool], llm=MockLLM())


def questions(tool: Any) -> Any:
    synthesizer = get_response_synthesizer(llm=MockLLM(), response_mode=ResponseMode.COMPACT)
    return SubQuestionQueryEngine(Asking(), synthesizer, [tool], use_async=False)


@pytest.mark.parametrize("made_of", [router, questions])
@pytest.mark.parametrize("allowed", [True, False])
def test_an_engine_over_guarded_tools_asks_them_through_the_gate(
    world: Callable[..., Any], made_of: Callable[[Any], Any], allowed: bool
) -> None:
    suite = Suite()
    tool = SHAPES["query-engine"]("ask", suite.body("ask"))
    made = world(known(tool), policy=UnsafeAllowAll() if allowed else DenyAll())
    engine = made_of(guard(tool, made.gate))

    with made.task(tools=None):
        for ask in (lambda: engine.query("x"), lambda: asyncio.run(engine.aquery("x"))):
            passed_on = not allowed and made_of is router  # the other engine swallows it
            with pytest.raises(ToolDenied) if passed_on else contextlib.nullcontext():
                ask()

    assert len(suite.ran) == (2 if allowed else 0)
    assert made.decisions() == ["allow:permit" if allowed else "deny:no_permit"] * 2


def test_each_decision_is_one_span_and_proving_a_copy_is_none(world: Callable[..., Any]) -> None:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    made = world(known(pay, "transfer"), known(note), telemetry=Telemetry(provider))
    llm = Script(calls(("pay", {"n": 1}), ("note", {"n": 2, "to": "bob"}))).model()
    agent = guard_agent(FunctionAgent(tools=[pay, note], llm=llm), made.gate)
    before = exporter.get_finished_spans()

    with made.task(tools=None):
        run(agent)

    names = [each.name for each in exporter.get_finished_spans()]
    provider.shutdown()
    assert before == ()
    assert sorted(names) == ["authorize note", "authorize pay"]
