"""A trace that is put into a message changes its `_meta` and nothing else, whatever the message."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lictor_mcp.tracing import CARRIED, carrying
from lictor_mcp.wire import parse

OURS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["_meta", "params", "traceparent", "TraceState", "baggage", '"_meta":{', "}", '\\"']
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)
PARAMS = st.builds(
    lambda given, meta: given if meta is None else {**given, "_meta": meta},
    st.dictionaries(TEXTS.filter(lambda name: name != "_meta"), VALUES, max_size=3),
    st.none() | OBJECTS,
)
SPELLED = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 0, 2, "\t"]),
        "ensure_ascii": st.booleans(),
        "sort_keys": st.booleans(),
    }
)


@given(st.none() | PARAMS, SPELLED)
def test_only_meta_changes(params: dict[str, Any] | None, spelled: dict[str, Any]) -> None:
    value = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    if params is not None:
        value["params"] = params
    before = parse(json.dumps(value, **spelled).encode())

    after = carrying(before, OURS)

    meta = {
        name: each
        for name, each in before.params.get("_meta", {}).items()
        if name.casefold() not in CARRIED
    }
    assert dict(after.params["_meta"]) == {**meta, **OURS}
    rest = {name: each for name, each in before.params.items() if name != "_meta"}
    assert {name: each for name, each in after.params.items() if name != "_meta"} == rest
    assert {**after.value, "params": {}} == {**before.value, "params": {}}
    if "_meta" not in before.params and params:
        added = '"_meta":' + json.dumps(OURS, separators=(",", ":")) + ","
        assert after.raw.replace(added.encode(), b"", 1) == before.raw
