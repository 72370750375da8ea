"""Holds what was emitted, and the registry itself, against telemetry.yaml. Used by the tests.

An empty list means that nothing is wrong; every problem names the signal and the attribute.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import yaml

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "int": (int,),
    "double": (float, int),
    "string[]": (tuple, list),
}


class Registry:
    """telemetry.yaml, read."""

    def __init__(self) -> None:
        text = files("lictor").joinpath("telemetry.yaml").read_text("utf-8")
        self.data: dict[str, Any] = yaml.safe_load(text)
        self.attributes = {item["key"]: item for item in self.data["attributes"]}
        self.spans = {item["type"]: item for item in self.data["spans"]}
        self.events = {item["name"]: item for item in self.data["events"]}
        self.metrics = {item["name"]: item for item in self.data["metrics"]}

    def levels(self, signal: Mapping[str, Any]) -> dict[str, str]:
        """Attribute → requirement level of a signal, its groups resolved."""
        groups = {group["id"]: group for group in self.data["attribute_groups"]}
        found: dict[str, str] = {}
        for entry in signal["attributes"]:
            if "ref" in entry:
                found[entry["ref"]] = entry["requirement_level"]
            else:
                found |= self.levels(groups[entry["ref_group"]])
        return found

    def values(self, key: str) -> list[str]:
        """Members of an enum attribute."""
        return [member["value"] for member in self.attributes[key]["type"]["members"]]

    def span(self, span: Any) -> list[str]:
        """What is wrong with a finished span of the SDK."""
        known = self.spans.get(span.name.split(" ")[0])
        if known is None:
            return [f"span {span.name}: not in the registry"]
        where, told = f"span {span.name}", dict(span.attributes)
        problems = list(self._told(where, told, self.levels(known)))
        expected = re.sub(r"\{(.+?)\}", lambda m: str(told.get(m[1])), known["name"]["note"])
        if span.name != expected:
            problems.append(f"{where}: should be named {expected}")
        if span.kind.name.lower() != known["kind"]:
            problems.append(f"{where}: kind {span.kind.name}")
        if span.status.is_ok is ("error.type" in told):
            problems.append(f"{where}: status and error.type disagree")
        if span.events or span.status.description:
            problems.append(f"{where}: carries events or a status text")
        return problems

    def event(self, record: Any) -> list[str]:
        """What is wrong with a log record of the SDK."""
        known = self.events.get(record.event_name)
        if known is None:
            return [f"event {record.event_name}: not in the registry"]
        where = f"event {record.event_name}"
        problems = list(self._told(where, dict(record.attributes), self.levels(known)))
        return problems + ([f"{where}: has a body"] if record.body is not None else [])

    def metric(self, metric: Any) -> list[str]:
        """What is wrong with one metric of a collected MetricsData."""
        known = self.metrics.get(metric.name)
        if known is None:
            return [f"metric {metric.name}: not in the registry"]
        where = f"metric {metric.name}"
        problems = [] if metric.unit == known["unit"] else [f"{where}: unit {metric.unit!r}"]
        kinds = {"Sum": "counter", "Histogram": "histogram"}
        if kinds.get(type(metric.data).__name__) != known["instrument"]:
            problems.append(f"{where}: is a {type(metric.data).__name__}")
        for point in metric.data.data_points:
            problems += self._told(where, dict(point.attributes), self.levels(known))
        return problems

    def _told(
        self, where: str, told: Mapping[str, Any], levels: Mapping[str, str]
    ) -> Iterator[str]:
        for key, level in levels.items():
            if level == "required" and key not in told:
                yield f"{where}: {key} is missing"
        for key, value in told.items():
            if key not in levels:
                yield f"{where}: {key} is not declared"
            else:
                yield from self._value(f"{where}: {key}", self.attributes[key], value)

    def _value(self, where: str, known: Mapping[str, Any], value: Any) -> Iterator[str]:
        kind, notes = known["type"], known.get("annotations", {})
        closed = [m["value"] for m in kind["members"]] if isinstance(kind, dict) else None
        wanted = _TYPES["string" if closed else kind]
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            yield f"{where}: is a {type(value).__name__}"
            return
        items = value if isinstance(value, tuple | list) else [value]
        if len(items) > 8:
            yield f"{where}: holds {len(items)} items"
        for item in items:
            yield from self._item(where, closed or notes.get("items"), notes.get("pattern"), item)

    def _item(
        self, where: str, closed: list[str] | None, pattern: str | None, item: Any
    ) -> Iterator[str]:
        if closed is not None and item not in closed:
            yield f"{where}: {item!r} is not one of {closed}"
        if pattern is not None and not re.fullmatch(pattern, item):
            yield f"{where}: {item!r} does not match {pattern}"
        limit = 4096 if where.endswith("arguments") else 256
        if isinstance(item, str) and (len(item) > limit or not item.isprintable()):
            yield f"{where}: is too long or not printable"

    def lint(self) -> list[str]:
        """What is wrong with the registry itself."""
        signals = [*self.spans.values(), *self.events.values(), *self.metrics.values()]
        used = {key for signal in signals for key in self.levels(signal)}
        names = [*self.attributes, *self.events, *self.metrics]
        problems = [
            f"{name} is a name and also the namespace of {other}"
            for name in names
            for other in names
            if other.startswith(f"{name}.")
        ]
        problems += [f"{key} is used and not defined" for key in used - set(self.attributes)]
        problems += [f"{key} is defined and not used" for key in set(self.attributes) - used]
        problems += [
            f"metric {name} is labelled with {key}"
            for name, metric in self.metrics.items()
            for key in self.levels(metric)
            if not self.attributes[key].get("annotations", {}).get("metric_ok")
        ]
        return problems + [f"{name} stands twice" for name in names if names.count(name) > 1]
