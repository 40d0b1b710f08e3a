"""Generated text as live functions. The text stays visible: in tracebacks and debuggers, and in what is pickled."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from typing import Any

import torch

from . import ops

_files: dict[str, str] = {}  # text by file name, so that two texts never share a name


def _register(label: str, text: str) -> str:
    """A file name under which `linecache` finds the text: `<implicitdsl Deq>`, numbered if another text has it."""
    name, k = f"<implicitdsl {label}>", 1
    while _files.get(name, text) != text:
        k += 1
        name = f"<implicitdsl {label} {k}>"
    _files[name] = text
    # No modification time: `linecache.checkcache` then keeps the entry.
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return name


class Program:
    """The functions of a generated source text, by name. Pickling and copying keep the text and execute it again."""

    def __init__(self, label: str, text: str) -> None:
        self.label = label
        self.text = text
        self._functions = self._execute()

    def _execute(self) -> dict[str, Callable[..., Any]]:
        filename = _register(self.label, self.text)
        namespace: dict[str, Any] = {"torch": torch, "ops": ops}
        given = set(namespace)
        exec(compile(self.text, filename, "exec"), namespace)
        return {k: v for k, v in namespace.items() if callable(v) and k not in given and k != "__builtins__"}

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._functions[name]

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __getstate__(self) -> dict[str, str]:
        return {"label": self.label, "text": self.text}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.label, self.text = state["label"], state["text"]
        self._functions = self._execute()

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self  # immutable

    def __repr__(self) -> str:
        return f"Program({self.label!r}: {', '.join(self)})"
