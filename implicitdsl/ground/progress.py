"""How far a long solve has come, shown on request: a bar of tqdm where that is installed, else a line on stderr."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

OFTEN, SELDOM = 0.1, 5.0
"""Seconds between two looks: on a terminal, and where every line stays (a file, a log)."""


class Bar:
    """One solve. `due` says whether it is time to `show`, which may cost a look at the numbers; `close` ends it."""

    def __init__(self, title: str) -> None:
        self.title, self.stream = title, sys.stderr
        self.every = OFTEN if self.stream.isatty() else SELDOM
        self.last = time.monotonic()
        self.shown = ""
        try:
            tqdm: Any = importlib.import_module("tqdm")
        except ImportError:
            self.bar = None
        else:
            form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
            self.bar = tqdm.tqdm(total=1.0, desc=title, bar_format=form, file=self.stream)
            self.every = OFTEN

    def due(self) -> bool:
        """Whether the last look was long enough ago."""
        return time.monotonic() - self.last >= self.every

    def show(self, part: float, text: str) -> None:
        """Say that `part` in [0, 1] of the way is done, and `text` besides."""
        self.last = time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(max(part - self.bar.n, 0.0))
            return
        line = f"{self.title}: {100 * part:3.0f} %, {text}"
        pad = " " * max(len(self.shown) - len(line), 0)
        self.stream.write(f"\r{line}{pad}" if self.stream.isatty() else f"{line}\n")
        self.stream.flush()
        self.shown = line

    def close(self) -> None:
        """No more is shown."""
        if self.bar is not None:
            self.bar.close()
        elif self.stream.isatty():
            self.stream.write("\n")
            self.stream.flush()


_wanted: ContextVar[bool] = ContextVar("implicitdsl_progress", default=False)


@contextmanager
def progress(shown: bool = True) -> Generator[None]:
    """Solves inside this `with` that can take long (differential equations) show how far they are.

    Values, gradients and the steps that are taken stay what they are. Compiled graphs show nothing.
    """
    token = _wanted.set(shown)
    try:
        yield
    finally:
        _wanted.reset(token)


@contextmanager
def bar(title: str) -> Generator[Bar | None]:
    """A bar where one is wanted, else None."""
    found = Bar(title) if _wanted.get() else None
    try:
        yield found
    finally:
        if found is not None:
            found.close()
