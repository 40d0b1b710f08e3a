"""Markdown tables, printed and kept."""

from __future__ import annotations

import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from .timing import threads


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def conditions(*packages: str) -> str:
    """One line on what was run where."""
    from importlib.metadata import PackageNotFoundError, version

    def shown(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"{name} absent"

    today = datetime.now(UTC).date().isoformat()
    timed = ", processor time" if threads() == 1 else ""
    which = ", ".join(shown(p) for p in ("torch", *packages))
    return f"{today} · {platform.machine()}, {threads()} thread(s){timed} · Python {platform.python_version()}, {which}"


def arguments(what: str, rows: Sequence[str] = ()) -> Namespace:
    """`--save FILE` writes the tables; `--only TEXT` keeps the rows that contain it."""
    parser = ArgumentParser(description=what)
    parser.add_argument("--save", type=Path, help="write the tables to this markdown file")
    parser.add_argument("--only", default="", help=f"only rows whose name contains this ({'; '.join(rows)})")
    return parser.parse_args()


def publish(text: str, save: Path | None) -> None:
    """Print, and write to a file if asked."""
    print(text, flush=True)
    if save is not None:
        save.parent.mkdir(parents=True, exist_ok=True)
        save.write_text(text + "\n", encoding="utf-8")
