"""Loads the grammar: where its file is, how its tables are cached, and how one statement is fed to the parser."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from lark import Lark
    from lark import Token as LarkToken

# Terminals that only the token filter reads: no rule mentions them, so lark would drop them.
FILTERED = ("INFINITY", "ELEMENT", "LESS", "GREATER", "POWER", "PARTIAL", "QUOTE", "UNKNOWN", "COMMENT")


class KeepTerminals:
    """A `postlex` that changes nothing: it only tells lark which terminals to keep."""

    always_accept: Iterable[str] = FILTERED

    def process(self, stream: Iterator[LarkToken]) -> Iterator[LarkToken]:
        return stream


def grammar_path() -> Path:
    """The grammar's file: package data in a wheel, the repository's `grammar/` in an editable install."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_grammar" / "implicit.lark"
    return installed if installed.exists() else package.parent / "grammar" / "implicit.lark"


def cache_file(grammar: str, version: str) -> str | None:
    """Where the parser's tables are kept, by grammar, lark and Python; None where no such folder can be made."""
    key = sha256(f"{version}\n{sys.version_info[:2]}\n{grammar}".encode()).hexdigest()[:20]
    home = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "implicitdsl"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return None
    return str(folder / f"grammar-{key}.lark") if os.access(folder, os.W_OK) else None


def build(grammar: str, transformer: Any, *, strict: bool = False, cache_path: str | None = None) -> Lark:
    """The LALR(1) parser of `grammar` whose reductions call the methods of `transformer`."""
    from lark import Lark

    options: dict[str, Any] = {"cache": cache_path} if cache_path else {}
    return Lark(
        grammar,
        parser="lalr",
        lexer="basic",
        strict=strict,
        postlex=cast(Any, KeepTerminals()),  # lark asks for its own abstract class, and imports here are late
        transformer=transformer,
        **options,
    )


@cache
def load() -> Lark:
    """The parser of this process; lark is imported here, at the first call."""
    import lark

    from .build import Build

    text = grammar_path().read_text(encoding="utf-8")
    return build(text, Build(), cache_path=cache_file(text, lark.__version__))


def session(text: str | None = None) -> Any:
    """A run of the parser (`lark.InteractiveParser`, whose types are partial)."""
    parser: Any = load()
    return parser.parse_interactive(text)


def lexemes(text: str) -> Iterator[LarkToken]:
    """The tokens of `text` from the parser's own lexer; `Lark.lex` would build a new one at every call."""
    run = session(text)
    return run.lexer_thread.lex(run.parser_state)
