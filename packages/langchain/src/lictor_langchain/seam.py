"""The innermost seam: where a guarded tool's own code is about to run.

Rules enforced here:

1. Every entry of a guarded tool (`func`, `coroutine`, `_run`, `_arun`) goes to the gate; the
   guarded object holds no reference to the original.
2. The gate's checked copy of the arguments is what the original gets.
3. One entry that leads to another inside the same attempt is decided once, by a single-use permit
   for the same arguments and the same authority.
4. The host's control flow and cancellation pass through unchanged.
5. A seam that is no longer ours refuses, at `_run` and `_arun` too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp

from lictor import Decision, Denied, ToolCall
from lictor.canonical import InputInvalid, take
from lictor.errors import Withheld
from lictor.gate import Gate
from lictor.model import Pep
from lictor.subagent import Inside, acting, inside
from lictor.task import current
from lictor_langchain.denial import ToolDenied, ToolPending, improper
from lictor_langchain.meeting import (
    Meeting,
    Permit,
    leaving,
    meeting,
    probing,
    watching,
)
from lictor_langchain.pause import pause, waits
from lictor_langchain.shape import Shape, resolved_signature

PEP: Final = Pep("langchain", "client")
PAUSES: Final = (GraphBubbleUp,)
_MUST_NOT_BE_SET: Final = frozenset({"_run", "_arun", "run", "arun", "invoke", "ainvoke"})

SEAM: Final = "_lictor_seam"
"""Private attribute of a guarded object; what counts as guarded is the gate's registry."""

_originals: WeakKeyDictionary[Seam, dict[str, Callable[..., Any]]] = WeakKeyDictionary()


class Seam:
    """What must stay in place on one guarded tool.

    Attributes:
        gate: Who decides.
        shape: What was guarded.
        kind: The class of the guarded object.
        fields: Attribute → the gated callable that stands there.
    """

    def __init__(self, gate: Gate, shape: Shape, originals: dict[str, Callable[..., Any]]) -> None:
        self.gate = gate
        self.shape = shape
        self.kind: type[BaseTool] | None = None
        self.fields: dict[str, Callable[..., Any]] = {}
        self.chained = bool(originals.keys() & {"_run", "_arun"}) and len(originals) > 1
        _originals[self] = originals

    def __deepcopy__(self, memo: object) -> Seam:
        return self

    def original(self, entry: str) -> Callable[..., Any]:
        """What runs when a call is allowed."""
        return _originals[self][entry]

    def intact(self, tool: BaseTool) -> bool:
        """Whether the guarded object is still as it was left."""
        values = tool.__dict__
        return (
            type(tool) is self.kind
            and tool.name == self.shape.tool.key.name
            and _MUST_NOT_BE_SET.isdisjoint(values)
            and all(values.get(name) is gated for name, gated in self.fields.items())
            and all(values.get(name) is self.fields.get(name) for name in ("func", "coroutine"))
        )

    def demand(self, tool: BaseTool) -> None:
        """Refuses, on record, an object that is no longer as it was left."""
        if self.intact(tool):
            return
        met = meeting.get()
        begun = met if met is not None and met.seam is self and met.armed else None
        raise self.refuse("tool_unguarded", "it was changed after it was guarded", {}, begun)

    def refuse(self, reason: str, detail: str, arguments: Any, met: Meeting | None) -> ToolDenied:
        """Records an attempt that ends before or after the tool, and the error that says so."""
        known = arguments if isinstance(arguments, dict) else {}
        host_id = met.host_id if met is not None else ""
        with acting(host_id):
            call = ToolCall(self.shape.tool, known, host_id=host_id, pep=PEP)
            return self.denied(self.gate.refuse(call, reason, detail), met)

    def denied(self, decision: Decision, met: Meeting | None) -> ToolDenied:
        """The error for the host; the middleware that waits for this call is told."""
        watch = watching.get()
        if watch is not None and met is not None and watch.host_id == met.host_id:
            watch.decision = decision
        return (ToolPending if waits(decision) else ToolDenied)(decision, met)

    def effectful(self) -> bool:
        """Whether the body has an effect; one that nobody has reviewed counts as one."""
        found = self.gate.catalog.known(self.shape.tool.key)
        return found is None or found.review.effectful


@contextmanager
def replaced(bodies: Mapping[Seam, dict[str, Callable[..., Any]]]) -> Iterator[None]:
    """While it lasts, other callables run where a call is allowed: for `lictor attack`."""
    before = {seam: _originals[seam] for seam in bodies}
    _originals.update(bodies)
    try:
        yield
    finally:
        _originals.update(before)


def seam_of(tool: BaseTool) -> Seam:
    """The seam of a guarded object, or of a copy the host made of one."""
    private: Any = tool.__pydantic_private__
    return private[SEAM]  # type: ignore[no-any-return]


class Attempt:
    """One call at one entry: what is asked of the gate, and what comes back."""

    __slots__ = ("arguments", "entry", "met", "nested", "outer", "problem", "seam", "supplied")

    def __init__(
        self, seam: Seam, entry: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.seam, self.entry = seam, entry
        self.outer = meeting.get()
        self.met: Meeting | None = None
        if self.outer is not None and self.outer.seam is seam and self.outer.armed:
            self.met = self.outer
            self.met.armed = False
        self.nested: Denied | None = None
        self.arguments: dict[str, object] = {}
        self.supplied: dict[str, object] = {}
        self.problem = ""
        if not probing.get():
            try:
                self.arguments, self.supplied = seam.shape.bindings[entry].take(args, kwargs)
            except InputInvalid as error:
                self.problem = str(error)

    @property
    def host_id(self) -> str:
        """The host's id of this call; only the first entry of a run has it."""
        return self.met.host_id if self.met is not None else ""

    def permitted(self) -> bool:
        """Whether the tool's own other entry, just authorized, has led here."""
        outer = self.outer
        if self.met is not None or outer is None or outer.seam is not self.seam:
            return False
        permit = outer.permit
        if permit is None or self.entry not in permit.entries:
            return False
        if inside.get() is not permit.place or current() is not permit.place.task:
            return False  # an agent that this tool has started acts for itself
        permit.entries.discard(self.entry)
        return not self.problem and permit.encoded == _encoded(self.arguments)

    def call(self) -> ToolCall:
        """What the gate is asked."""
        if self.problem:
            raise self.seam.refuse("input_invalid", self.problem, {}, self.met)
        return ToolCall(self.seam.shape.tool, self.arguments, self.host_id, self.supplied, PEP)

    def begin(self, checked: dict[str, object]) -> tuple[Meeting, Inside]:
        """What the body's context must know."""
        permit = None
        around = inside.get()
        effect = self.seam.effectful() or (around is not None and around.effect)
        place = Inside(current(), effect)
        if self.seam.chained:
            others = self.seam.shape.bindings.keys() - {self.entry}
            permit = Permit(others, _encoded(checked), place)
        return Meeting(self.seam, armed=False, permit=permit), place

    def end(self, result: Any) -> Any:
        """Looks at the result before the host does."""
        problem = improper(result, self.host_id)
        if problem:
            raise Withheld(problem)
        return result

    def denial(self, denied: Denied) -> Exception:
        """The error to raise for a `Denied` that came out of the gate: a denial, or a pause.

        One that the tool's own body raised stays what it is: the tool's failure.
        """
        if denied is self.nested or isinstance(denied, ToolDenied):
            return denied
        paused = pause(denied.decision, self.host_id)
        return paused or self.seam.denied(denied.decision, self.met)


def _encoded(arguments: dict[str, object]) -> bytes:
    try:
        return take(arguments).encoded
    except InputInvalid:
        return b""


def gated(entry: str, like: Callable[..., Any], seam: Seam | None) -> Callable[..., Any]:
    """An entry that goes to the gate; looks like the original to the host.

    Args:
        entry: Its name; `coroutine` and `_arun` are asynchronous.
        like: The original.
        seam: The seam of a callable; a method finds that of its object.
    """
    enter: Any = _aenter if entry in ("coroutine", "_arun") else _enter

    entered = _method(enter, entry) if seam is None else _function(enter, entry, seam)
    return _looking_like(_awaiting(entered) if enter is _aenter else entered, like)


def _method(enter: Any, entry: str) -> Any:
    def entered(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        seam = seam_of(self)
        seam.demand(self)
        return enter(seam, entry, (self,), args, kwargs)

    return entered


def _function(enter: Any, entry: str, seam: Seam) -> Any:
    def entered(*args: Any, **kwargs: Any) -> Any:
        return enter(seam, entry, (), args, kwargs)

    return entered


def _awaiting(entered: Any) -> Any:
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        return await entered(*args, **kwargs)

    return awaited


def _enter(
    seam: Seam, entry: str, bound: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    attempt = Attempt(seam, entry, args, kwargs)
    if attempt.permitted():
        return seam.original(entry)(*bound, *args, **kwargs)

    def body(checked: dict[str, object]) -> Any:
        met, place = attempt.begin(checked)
        first, named = seam.shape.bindings[entry].call(checked, attempt.supplied)
        tokens = meeting.set(met), inside.set(place)
        try:
            return attempt.end(seam.original(entry)(*bound, *first, **named))
        except Denied as nested:
            attempt.nested = nested
            raise
        finally:
            meeting.reset(tokens[0])
            inside.reset(tokens[1])

    try:
        with acting(attempt.host_id):
            return seam.gate.run(attempt.call(), body, pauses=PAUSES, left=leaving.get())
    except Denied as denied:
        raise attempt.denial(denied) from None


async def _aenter(
    seam: Seam, entry: str, bound: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    attempt = Attempt(seam, entry, args, kwargs)
    if attempt.permitted():
        return await seam.original(entry)(*bound, *args, **kwargs)

    async def body(checked: dict[str, object]) -> Any:
        met, place = attempt.begin(checked)
        first, named = seam.shape.bindings[entry].call(checked, attempt.supplied)
        tokens = meeting.set(met), inside.set(place)
        try:
            return attempt.end(await seam.original(entry)(*bound, *first, **named))
        except Denied as nested:
            attempt.nested = nested
            raise
        finally:
            meeting.reset(tokens[0])
            inside.reset(tokens[1])

    try:
        with acting(attempt.host_id):
            return await seam.gate.arun(attempt.call(), body, pauses=PAUSES)
    except Denied as denied:
        raise attempt.denial(denied) from None


def resolved(method: Callable[..., Any]) -> Callable[..., Any]:
    """The host's own method, which goes to `func` and `coroutine`, as long as those are ours.

    What the host would inspect on every call is worked out once.
    """
    if inspect.iscoroutinefunction(method):

        async def forwarding(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
            seam_of(self).demand(self)
            return await method(self, *args, **kwargs)

    else:

        def forwarding(self: BaseTool, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
            seam_of(self).demand(self)
            return method(self, *args, **kwargs)

    return _looking_like(forwarding, method)


def _looking_like(entered: Any, like: Callable[..., Any]) -> Callable[..., Any]:
    """Name, signature and annotations of the original, which the host inspects.

    Not `functools.wraps`: that would leave the original within reach as `__wrapped__`.
    """
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        if hasattr(like, name):
            setattr(entered, name, getattr(like, name))
    entered.__signature__, entered.__annotations__ = resolved_signature(like)
    return entered  # type: ignore[no-any-return]
