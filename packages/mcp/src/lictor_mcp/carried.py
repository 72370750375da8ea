"""What a result carries along besides its own text.

Rules enforced here:

1. A resource inside a result passes only where it could be read by itself; in its place stands a
   sentence.
2. Of a server that nobody has reviewed only what the protocol needs passes: its name and version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from lictor_mcp.methods import INFO

Wire: TypeAlias = Mapping[str, Any]
Readable: TypeAlias = Callable[[object], bool]

WITHHELD: Final = "[withheld: this resource may not be read here]"


def without(result: Wire, asked: object, readable: Readable) -> Wire:
    """A result without resources that may not be read; the same object if there are none.

    Args:
        result: Of a tool call, a prompt, or the reading of a resource.
        asked: The resource that was asked for: reading it was decided.
        readable: Decides about any other.
    """
    changed: dict[str, Any] = {}
    if isinstance(result.get("content"), list):
        changed["content"] = [_block(each, readable) for each in result["content"]]
    if isinstance(result.get("messages"), list):
        changed["messages"] = [_message(each, readable) for each in result["messages"]]
    if isinstance(result.get("contents"), list):
        changed["contents"] = [_contents(each, asked, readable) for each in result["contents"]]
    kept = all(result[member] == value for member, value in changed.items())
    return result if kept else {**result, **changed}


def tasks(result: Wire) -> list[str]:
    """The tasks of the server that a result says it has started."""
    started = result.get("task")
    found = (result.get("taskId"), started.get("taskId") if isinstance(started, dict) else None)
    return [each for each in found if isinstance(each, str)]


def _message(message: Any, readable: Readable) -> Any:
    if not isinstance(message, dict) or "content" not in message:
        return message
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [_block(each, readable) for each in content]}
    return {**message, "content": _block(content, readable)}


def _block(block: Any, readable: Readable) -> Any:
    if not isinstance(block, dict):
        return block
    kind, inner = block.get("type"), block.get("content")
    if kind == "tool_result" and isinstance(inner, list):
        return {**block, "content": [_block(each, readable) for each in inner]}
    if kind not in ("resource", "resource_link"):
        return block
    held = block.get("resource") if kind == "resource" else block
    uri = held.get("uri") if isinstance(held, dict) else None
    return block if readable(uri) else {"type": "text", "text": WITHHELD}


def _contents(contents: Any, asked: object, readable: Readable) -> Any:
    if not isinstance(contents, dict):
        return contents
    uri = contents.get("uri")
    if uri == asked or readable(uri):
        return contents
    return {"uri": uri, "mimeType": "text/plain", "text": WITHHELD}


def silent(result: Wire) -> Wire:
    """An opening answer without instructions, and with no more of the server than it needs."""
    kept = {key: value for key, value in result.items() if key != "instructions"}
    if isinstance(kept.get("serverInfo"), dict):
        kept["serverInfo"] = _bare(kept["serverInfo"])
    meta = kept.get("_meta")
    if isinstance(meta, dict) and isinstance(meta.get(INFO), dict):
        kept["_meta"] = {**meta, INFO: _bare(meta[INFO])}
    return result if kept == result else kept


def _bare(info: Wire) -> dict[str, Any]:
    return {name: info[name] for name in ("name", "version") if name in info}
