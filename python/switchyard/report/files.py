"""Reads a file, and says which of those that the report knows it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

from .errors import ReportError
from .values import Value

KINDS = {
    "switchyard-bench/1": "bench",
    "switchyard-latency/1": "bench",
    "switchyard-plan/1": "plan",
    "switchyard-record/1": "record",
}
KNOWN = "switchyard-bench/1, switchyard-latency/1, switchyard-plan/1 or switchyard-record/1"


def read(path: str) -> tuple[str, Value, str]:
    """Returns the kind of a file ("trace", or one of KINDS), its value, and its text. "-": standard input."""
    try:
        text = (sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()).decode()
    except OSError as error:
        raise ReportError(f"{path}: expected a file that can be read, seen: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ReportError(f"{path}: expected JSON, seen bytes that are no text") from None
    value = Value(_parse(path, text), path)
    if isinstance(value.plain, dict) and "traceEvents" in value.plain:
        return "trace", value, text
    schema = value.get("schema")
    if schema is None:
        raise ReportError(f"{path}: schema: expected {KNOWN}, or traceEvents in its place, seen neither")
    if schema.plain not in KINDS:
        raise ReportError(f"{schema.where}: expected {KNOWN}, seen {schema.plain!r}: another version wrote this file")
    return KINDS[schema.plain], value, text


def _parse(path: str, text: str) -> object:
    try:
        return json.loads(text, parse_constant=lambda word: _refuse(path, word))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        if not text.strip():
            raise ReportError(f"{path}: expected JSON, seen an empty file") from None
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            raise ReportError(f"{path}: expected JSON, seen one that ends at {place}: the file was cut short") from None
        raise ReportError(f"{path}: expected JSON, seen at {place}: {error.msg}") from None
    except RecursionError:
        raise ReportError(f"{path}: expected JSON of this command, seen lists in lists without end") from None


def _refuse(path: str, word: str) -> NoReturn:
    raise ReportError(f"{path}: expected finite numbers, seen {word}")
