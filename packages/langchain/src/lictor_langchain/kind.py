"""The class of a guarded copy: the host's own, telling the seam what is about to happen.

Rules enforced here:

1. A copy is of the same class to the host, and one class is made for each of the host's.
2. Arguments are refused, and attempts the host gives up are recorded, before the tool is met.
3. A run that is cancelled while a thread waits for a decision takes its question with it.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools import Tool as SingleInputTool
from langgraph.errors import GraphBubbleUp
from pydantic import ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from lictor import Denied
from lictor_langchain.meeting import NO_ID, Meeting, awaited, meeting, probing
from lictor_langchain.seam import Seam, gated, resolved, seam_of

_lock: Final = threading.RLock()
_classes: dict[type[BaseTool], type[BaseTool]] = {}
_bases: dict[type[BaseTool], type[BaseTool]] = {}


def base_of(kind: type[BaseTool]) -> type[BaseTool] | None:
    """The host's class behind a guarded one; `None` if it is not guarded."""
    return _bases.get(kind)


def stock(base: type[BaseTool]) -> bool:
    """Whether the host's own `_run` and `_arun` lead to `func` and `coroutine`."""
    return any(
        issubclass(base, host) and base._run is host._run and base._arun is host._arun
        for host in (StructuredTool, SingleInputTool)
    )


def class_of(base: type[BaseTool]) -> type[BaseTool]:
    """A subclass that tells the seam what the host is about to do."""
    with _lock:
        made = _classes.get(base)
        if made is None:
            names: dict[str, Any] = {
                "__module__": base.__module__,
                "__qualname__": base.__qualname__,
                "__doc__": base.__doc__,
                "__annotations__": {},
                "run": _run,
                "arun": _arun,
                "ainvoke": _ainvoke,
                "_to_args_and_kwargs": _to_args_and_kwargs,
            }
            if stock(base):
                names |= {"_run": resolved(base._run), "_arun": resolved(base._arun)}
            else:
                names["_run"] = gated("_run", base._run, None)
                if base._arun is not BaseTool._arun:
                    names["_arun"] = gated("_arun", base._arun, None)
            made = type(base)(base.__name__, (base,), names)  # type: ignore[misc]
            _classes[base], _bases[made] = made, base
        return made


def _run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
    met = Meeting(seam_of(self), kwargs.get("tool_call_id") or "")
    token = meeting.set(met)
    try:
        return _bases[type(self)].run(self, tool_input, *args, **kwargs)
    except Exception as error:
        _given_up(met, tool_input, error)
        raise
    finally:
        meeting.reset(token)


async def _arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
    met = Meeting(seam_of(self), kwargs.get("tool_call_id") or "")
    token = meeting.set(met)
    try:
        with awaited():
            return await _bases[type(self)].arun(self, tool_input, *args, **kwargs)
    except Exception as error:
        _given_up(met, tool_input, error)
        raise
    finally:
        meeting.reset(token)


async def _ainvoke(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
    with awaited():  # the host runs `invoke` on another thread where there is nothing to await
        return await _bases[type(self)].ainvoke(self, *args, **kwargs)


def _given_up(met: Meeting, tool_input: Any, error: Exception) -> None:
    """Records an attempt that the host ended before the gate was met."""
    if met.armed and not probing.get() and not isinstance(error, Denied):
        met.armed = False
        met.seam.refuse("host_refused", type(error).__name__, tool_input, met)


def _to_args_and_kwargs(
    self: BaseTool, tool_input: str | dict[str, Any], tool_call_id: str | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if probing.get():
        return (), {}
    seam = seam_of(self)
    seam.demand(self)
    if tool_call_id == "":
        raise seam.refuse("input_invalid", NO_ID, tool_input, _met(seam))
    try:
        return _bases[type(self)]._to_args_and_kwargs(self, tool_input, tool_call_id)
    except GraphBubbleUp:
        raise
    except Exception as error:
        refused = seam.refuse("input_invalid", _problem(error), tool_input, _met(seam))
        if self.handle_validation_error and isinstance(error, ValidationError | ValidationErrorV1):
            raise  # the tool has its own words for this
        raise refused from None


def _met(seam: Seam) -> Meeting | None:
    met = meeting.get()
    if met is None or met.seam is not seam:
        return None
    met.armed = False
    return met


def _problem(error: Exception) -> str:
    """What the host says is wrong, without the values."""
    if isinstance(error, ValidationError):
        told = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['type']}" for each in told)
    return type(error).__name__
