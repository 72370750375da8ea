"""The seam: where the code of a guarded tool is about to run.

Rules enforced here:

1. Every entry of a guarded tool (`call`, `acall`, calling it, `fn`, `async_fn`, `real_fn`) goes to
   the gate; the guarded object holds no reference to the original.
2. The gate's checked copy of the arguments is what the original gets.
3. One entry that leads to another inside the same attempt is decided once, by a single-use permit
   for the same arguments and the same authority.
4. An effect has its target and amount from its caller: what the host makes of arguments that it
   cannot read is nothing at all, and a default is nobody's decision.
5. The host's control flow and cancellation pass through unchanged.
6. A seam that is no longer ours refuses.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from llama_index.core.tools import BaseTool, ToolOutput

from lictor import Decision, Denied, ToolCall
from lictor.canonical import InputInvalid, take
from lictor.gate import Gate
from lictor.model import Impact, Pep, Review
from lictor.subagent import Inside, acting, inside
from lictor.task import current
from lictor_llamaindex.denial import (
    ToolDenied,
    ToolFailed,
    ToolPending,
    answer,
    refuse_later,
    says_failed,
)
from lictor_llamaindex.shape import Binding, Shape, Taken
from lictor_llamaindex.step import PAUSES, Step, entered, waits

PEP: Final = Pep("llamaindex", "client")
FIELDS: Final = ("_fn", "_async_fn", "_real_fn")
METHODS: Final = ("call", "acall", "__call__")
SEAM: Final = "_lictor_seam"
"""Attribute of a guarded object; what counts as guarded is the gate's registry."""

SPOILT: Final = "_lictor_spoilt"
_MUST_NOT_BE_SET: Final = frozenset({SPOILT, *METHODS})

probing: ContextVar[bool] = ContextVar("lictor_llamaindex_probing", default=False)
_originals: WeakKeyDictionary[Seam, Mapping[str, Callable[..., Any]]] = WeakKeyDictionary()


@dataclass(slots=True, eq=False)
class Permit:
    """Lets one entry of a tool reach each of its others once, as it was authorized itself."""

    seam: Seam
    entries: set[str]
    encoded: bytes
    place: Inside


_permit: ContextVar[Permit | None] = ContextVar("lictor_llamaindex_permit", default=None)


class Seam:
    """What must stay in place on one guarded tool.

    Attributes:
        gate: Who decides.
        shape: What was guarded.
        bindings: How each entry takes its arguments.
        kind: The class of the guarded object.
        fields: Attribute → the gated callable that stands there.
        chained: One entry of this tool may lead to another.
    """

    def __init__(
        self,
        gate: Gate,
        shape: Shape,
        bindings: Mapping[str, Binding],
        originals: Mapping[str, Callable[..., Any]],
        *,
        chained: bool,
    ) -> None:
        self.gate, self.shape, self.bindings = gate, shape, bindings
        self.kind: type[BaseTool] | None = None
        self.fields: dict[str, Callable[..., Any]] = {}
        self.chained = chained
        _originals[self] = originals

    def __deepcopy__(self, memo: object) -> Seam:
        return self

    def original(self, entry: str) -> Callable[..., Any]:
        """What runs when a call is allowed; of a chained tool it takes the tool first."""
        return _originals[self][entry]

    def intact(self, tool: BaseTool) -> bool:
        """Whether the guarded object is still as it was left."""
        values = vars(tool)
        if type(tool) is not self.kind or not _MUST_NOT_BE_SET.isdisjoint(values):
            return False
        for name, ours in self.fields.items():
            if values.get(name) is not ours:
                return False
        return tool.metadata.name == self.shape.tool.key.name

    def refuse(self, reason: str, detail: str, arguments: object, host_id: str) -> ToolDenied:
        """Records an attempt that never reaches the tool, and the error that says so."""
        known = arguments if isinstance(arguments, dict) else {}
        with acting(host_id):
            call = ToolCall(self.shape.tool, known, host_id=host_id, pep=PEP)
            return denied(self.gate.refuse(call, reason, detail))

    def review(self) -> Review | None:
        """What the operator has decided about the tool."""
        found = self.gate.catalog.known(self.shape.tool.key)
        return None if found is None else found.review


@contextmanager
def replaced(bodies: Mapping[Seam, Mapping[str, Callable[..., Any]]]) -> Iterator[None]:
    """While it lasts, other callables run where a call is allowed: for `lictor attack`."""
    before = {seam: _originals[seam] for seam in bodies}
    _originals.update(bodies)
    try:
        yield
    finally:
        _originals.update(before)


def denied(decision: Decision) -> ToolDenied:
    """The error for a decision."""
    return (ToolPending if waits(decision) else ToolDenied)(decision)


def seam_of(tool: BaseTool) -> Seam:
    """The seam of a guarded object."""
    return vars(tool)[SEAM]  # type: ignore[no-any-return]


class Attempt:
    """One call at one entry: what is asked of the gate, and what comes back."""

    __slots__ = ("entry", "nested", "outer", "problem", "seam", "step", "taken", "tool")

    def __init__(
        self,
        seam: Seam,
        tool: BaseTool | None,
        entry: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.seam, self.tool, self.entry = seam, tool, entry
        self.outer = _permit.get()
        self.step = Step(seam.shape.tool.key.name)
        self.nested: Denied | None = None
        self.taken, self.problem = Taken({}), ""
        if probing.get():
            return
        try:
            self.taken = seam.shape.take(seam.bindings[entry], args, kwargs)
        except InputInvalid as error:
            self.problem = str(error)

    def permitted(self) -> bool:
        """Whether the tool's own other entry, just authorized, has led here."""
        permit = self.outer
        if permit is None or permit.seam is not self.seam or self.entry not in permit.entries:
            return False
        if inside.get() is not permit.place or current() is not permit.place.task:
            return False  # an agent that this tool has started acts for itself
        permit.entries.discard(self.entry)
        return not self.problem and permit.encoded == _encoded(self.taken.arguments)

    def call(self, injected: Mapping[str, object] | None = None) -> ToolCall:
        """What the gate is asked.

        Raises:
            ToolDenied: There is nothing to ask.
        """
        seam, host_id = self.seam, self.step.host_id
        if self.tool is not None and not seam.intact(self.tool):
            raise seam.refuse("tool_unguarded", "it was changed after it was guarded", {}, host_id)
        if not probing.get():
            problem = self.problem or self._left_out()
            if problem:
                raise seam.refuse("input_invalid", problem, {}, host_id)
            if seam.shape.executes and not self._contained():
                detail = "code that a model has written, in this very process"
                raise seam.refuse("tool_isolation", detail, self.taken.arguments, host_id)
        supplied = self.taken.supplied if injected is None else injected
        return ToolCall(seam.shape.tool, self.taken.arguments, host_id, supplied, PEP)

    def _left_out(self) -> str:
        """Why an effect may not run on what nobody has given."""
        review = self.seam.review() if self.taken.defaulted else None
        if review is None or not review.effectful:
            return ""
        left = sorted({*review.target, review.amount} & self.taken.defaulted)
        return f"argument {', '.join(left)}: not given; a default does not count" if left else ""

    def _contained(self) -> bool:
        review = self.seam.review()
        return review is None or (Impact.EXECUTE in review.impact and bool(review.isolation))

    def begin(self, checked: dict[str, object]) -> Body:
        """What the body is called with, and what its context must know."""
        seam, permit = self.seam, None
        around, review = inside.get(), seam.review()
        effect = review is None or review.effectful or (around is not None and around.effect)
        place = Inside(current(), effect)
        if seam.chained:
            permit = Permit(seam, set(seam.bindings) - {self.entry}, _encoded(checked), place)
        first, named = seam.shape.call(seam.bindings[self.entry], checked, self.taken)
        if seam.chained and self.tool is not None:
            first.insert(0, self.tool)
        return Body(first, named, permit, place, self.step.running)

    def end(self, result: Any) -> Any:
        """Looks at the result before the host does."""
        if says_failed(result):
            raise ToolFailed(result)
        refuse_later(result)
        return result

    def refused(self, found: Denied) -> ToolOutput:
        """The denial as a value, where the entry has one.

        Raises:
            ToolDenied: At a raw entry; or the tool's own body raised it, which is its failure.
            WaitingForEvent: The run waits for a person.
        """
        if found is self.nested:
            raise found
        paused = self.step.pause(found.decision)
        if paused is not None:
            raise paused
        self.step.settle()
        mine = found if isinstance(found, ToolDenied) else denied(found.decision)
        if self.tool is None:
            raise mine
        return answer(self.seam.shape.tool.key.name, mine)


class Body:
    """Around a body: what calls made in there will find."""

    __slots__ = ("_permit", "_place", "_step", "_tokens", "first", "named")

    def __init__(
        self,
        first: list[object],
        named: dict[str, object],
        permit: Permit | None,
        place: Inside,
        step: object | None,
    ) -> None:
        self.first, self.named = first, named
        self._permit, self._place, self._step = permit, place, step

    def __enter__(self) -> Body:
        self._tokens = (
            _permit.set(self._permit),
            inside.set(self._place),
            entered.set(self._step),
        )
        return self

    def __exit__(self, *_: object) -> None:
        _permit.reset(self._tokens[0])
        inside.reset(self._tokens[1])
        entered.reset(self._tokens[2])


def _encoded(arguments: Mapping[str, object]) -> bytes:
    try:
        return take(arguments).encoded
    except InputInvalid:
        return b""


def enter(
    seam: Seam,
    tool: BaseTool | None,
    entry: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """One call at a synchronous entry."""
    attempt = Attempt(seam, tool, entry, args, kwargs)
    original = seam.original(entry)
    if attempt.permitted():
        return original(*((tool,) if tool is not None else ()), *args, **kwargs)

    def body(checked: dict[str, object]) -> Any:
        with attempt.begin(checked) as within:
            try:
                return attempt.end(original(*within.first, **within.named))
            except Denied as nested:
                attempt.nested = nested
                raise

    try:
        with acting(attempt.step.host_id):
            result = seam.gate.run(attempt.call(), body, pauses=PAUSES)
    except ToolFailed as failed:
        result = failed.output
    except Denied as found:
        return attempt.refused(found)
    attempt.step.settle()
    return result


async def aenter(
    seam: Seam,
    tool: BaseTool | None,
    entry: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """One call at an asynchronous entry."""
    attempt = Attempt(seam, tool, entry, args, kwargs)
    original = seam.original(entry)
    if attempt.permitted():
        return await original(*((tool,) if tool is not None else ()), *args, **kwargs)

    async def body(checked: dict[str, object]) -> Any:
        with attempt.begin(checked) as within:
            try:
                return attempt.end(await original(*within.first, **within.named))
            except Denied as nested:
                attempt.nested = nested
                raise

    try:
        with acting(attempt.step.host_id):
            asked = attempt.call(await _seen(attempt))
            result = await seam.gate.arun(asked, body, pauses=PAUSES)
    except ToolFailed as failed:
        result = failed.output
    except Denied as found:
        return attempt.refused(found)
    attempt.step.settle()
    return result


async def _seen(attempt: Attempt) -> dict[str, object] | None:
    """The injected values with the workflow's state as it is now, if an effect acts on it."""
    name, taken = attempt.seam.shape.context, attempt.taken
    review = attempt.seam.review() if name in taken.supplied else None
    if review is None or not review.effectful:
        return None
    context: Any = taken.supplied[name]
    state = await context.store.get("state", default=None)
    return {**taken.supplied, name: {"state": state}}


def gated(
    entry: str, function: Callable[..., Any], seam: Seam, like: Callable[..., Any]
) -> Callable[..., Any]:
    """A raw entry that goes to the gate.

    Args:
        entry: Its name.
        function: What stands there now.
        seam: The seam.
        like: What it looks like to the host, which inspects it.
    """
    if inspect.iscoroutinefunction(function):

        async def through(*args: Any, **kwargs: Any) -> Any:
            return await aenter(seam, None, entry, args, kwargs)

    else:

        def through(*args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
            return enter(seam, None, entry, args, kwargs)

    # Not `functools.wraps`: that would leave the original within reach as `__wrapped__`.
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        if hasattr(like, name):
            setattr(through, name, getattr(like, name))
    made: Any = through
    made.__signature__ = inspect.signature(like)
    made.__annotations__ = dict(getattr(like, "__annotations__", {}))
    return through
