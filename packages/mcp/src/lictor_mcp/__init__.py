"""Lictor for MCP. A shell until its guards exist: it exports nothing and guards nothing."""

__all__: list[str] = []
