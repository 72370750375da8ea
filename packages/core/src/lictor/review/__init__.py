"""Reviewing: what a person is shown of a tool, and how he says what it can do."""

from lictor.review.dialogue import Quit, Screen, ask_review
from lictor.review.shown import full_lines, review_lines, summary

__all__ = ["Quit", "Screen", "ask_review", "full_lines", "review_lines", "summary"]
