"""The adapter suite on guards that do not hold: for each way to be wrong, a trial notices."""

from __future__ import annotations

import contextvars
import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("langchain")

from langchain_core.tools import BaseTool, ToolException

from lictor.testing.adapter_suite import World, trials
from lictor_langchain.testing.host import LangChain

Body = Callable[..., Any]
_around: contextvars.ContextVar[str] = contextvars.ContextVar("around", default="")


class Sound(LangChain):
    """A guard that asks before a function runs, about what it will run; others spoil it."""

    name = "sound"
    shapes = ("function",)
    paths = ("invoke", "agent.invoke", "ainvoke")

    def guarded(self, tools: list[BaseTool], world: World) -> list[BaseTool]:
        return [self.wrap(tool, world) for tool in tools]

    def wrap(self, tool: Any, world: World) -> BaseTool:
        function = self.around(world, tool.name, tool.func)
        return tool.model_copy(update={"func": function, "handle_tool_error": True})  # type: ignore[no-any-return]

    def around(self, world: World, name: str, body: Body) -> Body:
        def function(**given: Any) -> Any:
            taken = copy.deepcopy(given)
            self.demand(world, name, taken)
            return body(**taken)

        return function

    def demand(self, world: World, name: str, given: dict[str, Any]) -> None:
        if not self.allows(world, name, given):
            raise ToolException("no")

    def allows(self, world: World, name: str, given: dict[str, Any]) -> bool:
        return world.decide(name, given) is True


class LetsErrorsThrough(Sound):
    def allows(self, world: World, name: str, given: dict[str, Any]) -> bool:
        try:
            return super().allows(world, name, given)
        except Exception:
            return True


class LetsInterruptionsThrough(Sound):
    def allows(self, world: World, name: str, given: dict[str, Any]) -> bool:
        try:
            return super().allows(world, name, given)
        except Exception:
            return False
        except BaseException:
            return True


class TakesAnythingForYes(Sound):
    def allows(self, world: World, name: str, given: dict[str, Any]) -> bool:
        return bool(world.decide(name, given))


class TakesWhatEqualsTrue(Sound):
    def allows(self, world: World, name: str, given: dict[str, Any]) -> bool:
        answer = world.decide(name, given)
        return bool(answer == True)  # noqa: E712


class Remembers(Sound):
    def __init__(self) -> None:
        self.known: list[tuple[World, str, dict[str, Any]]] = []

    def allows(self, world: World, name: str, given: dict[str, Any]) -> bool:
        if any(w is world and (n, g) == (name, given) for w, n, g in self.known):
            return True
        self.known.append((world, name, dict(given)))
        return super().allows(world, name, given)


class TrustsBodies(Sound):
    """What is called from within a body is not asked about."""

    def mark(self, name: str, given: dict[str, Any]) -> str:
        return "anything"

    def around(self, world: World, name: str, body: Body) -> Body:
        def function(**given: Any) -> Any:
            mark = self.mark(name, given)
            if _around.get() != mark:
                self.demand(world, name, given)
            token = _around.set(mark)
            try:
                return body(**given)
            finally:
                _around.reset(token)

        return function


class TrustsTheSameTool(TrustsBodies):
    def mark(self, name: str, given: dict[str, Any]) -> str:
        return name


class TrustsTheSameCall(TrustsBodies):
    def mark(self, name: str, given: dict[str, Any]) -> str:
        return f"{name} {given}"


class TriesAgain(Sound):
    def around(self, world: World, name: str, body: Body) -> Body:
        def function(**given: Any) -> Any:
            self.demand(world, name, given)
            try:
                return body(**given)
            except ValueError:
                return body(**given)

        return function


class LeavesTheOriginal(Sound):
    def around(self, world: World, name: str, body: Body) -> Body:
        return functools.wraps(body)(super().around(world, name, body))


class AsksAboutTheNameOfTheDay(Sound):
    def wrap(self, tool: Any, world: World) -> BaseTool:
        def function(**given: Any) -> Any:
            self.demand(world, made.name, given)
            return body(**given)

        body = tool.func
        made: BaseTool = tool.model_copy(update={"func": function, "handle_tool_error": True})
        return made


class Raises(Sound):
    def demand(self, world: World, name: str, given: dict[str, Any]) -> None:
        if not self.allows(world, name, given):
            raise PermissionError("no")


class SharesOnePlace(Sound):
    def around(self, world: World, name: str, body: Body) -> Body:
        place: dict[str, Any] = {}

        def function(**given: Any) -> Any:
            place["given"] = given
            self.demand(world, name, dict(given))
            return body(**place["given"])

        return function


class ChangesWhatRuns(Sound):
    def around(self, world: World, name: str, body: Body) -> Body:
        def function(**given: Any) -> Any:
            self.demand(world, name, given)
            return body(**{**given, "n": given["n"] + 1})

        return function


class AsksAfterwards(Sound):
    def around(self, world: World, name: str, body: Body) -> Body:
        def function(**given: Any) -> Any:
            result = body(**given)
            self.demand(world, name, given)
            return result

        return function


class AsksAboutWhatTheModelWrote(Sound):
    """It stands before the host has made of the arguments what will run."""

    def wrap(self, tool: Any, world: World) -> BaseTool:
        guard, base = self, type(tool)

        class Guarded(base):  # type: ignore[misc, valid-type]
            def invoke(self, input: Any, config: Any = None, **more: Any) -> Any:
                given = input.get("args", input)
                if not guard.allows(world, self.name, dict(given)):
                    return "no"
                return base.invoke(self, input, config, **more)

        made: BaseTool = tool.model_copy()
        made.__class__ = Guarded
        return made


@pytest.mark.parametrize(
    ("guard", "notices"),
    [
        (LetsErrorsThrough, "engine-raises"),
        (LetsInterruptionsThrough, "engine-interrupts"),
        (TakesAnythingForYes, "engine-nonsense"),
        (TakesWhatEqualsTrue, "engine-nonsense"),
        (Remembers, "re-entrant"),
        (TrustsBodies, "nested"),
        (TrustsTheSameTool, "re-entrant"),
        (TrustsTheSameCall, "re-entrant"),
        (TriesAgain, "body-raises"),
        (LeavesTheOriginal, "raw"),
        (AsksAboutTheNameOfTheDay, "renamed"),
        (Raises, "retried"),
        (Raises, "fallback"),
        (SharesOnePlace, "threads"),
        (ChangesWhatRuns, "invented"),
        (AsksAfterwards, "deny-function-ainvoke"),
        (AsksAboutWhatTheModelWrote, "coerced"),
        (AsksAboutWhatTheModelWrote, "mutated"),
        (AsksAboutWhatTheModelWrote, "unknown-argument"),
    ],
)
def test_a_guard_that_is_wrong_in_one_way_is_noticed(guard: type[Sound], notices: str) -> None:
    by_id = {trial.id: trial for trial in trials(Sound())}

    assert by_id[notices].run(Sound()).state == "held"
    assert by_id[notices].run(guard()).state == "broken"
