"""The grammar: no conflicts, a method for each rule, no vocabulary in it, and tables that are cached."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from syntax_specs import DEQ

from implicitdsl.ground.source import Source
from implicitdsl.syntax import grammar
from implicitdsl.syntax.build import Build
from implicitdsl.syntax.parser import parse

TEXT = grammar.grammar_path().read_text(encoding="utf-8")


def test_no_conflicts() -> None:
    """`strict` raises on shift/reduce and reduce/reduce conflicts and on terminals that match the same text."""
    parser = grammar.build(TEXT, Build(), strict=True)
    assert {rule.options.priority for rule in parser.rules} == {None}


def test_rules_are_the_methods_of_build() -> None:
    parser = grammar.build(TEXT, Build())
    names = {str(rule.alias or rule.origin.name) for rule in parser.rules}
    inlined = set(re.findall(r"^\?(\w+):", TEXT, re.MULTILINE))
    rules = {name for name in names if not name.startswith("_")} - inlined
    methods = {name for name in vars(Build) if not name.startswith("_")}
    assert rules == methods


def test_no_vocabulary() -> None:
    """Functions, sets, solvers and options are known to later stages only."""
    code = re.sub(r"//.*", "", TEXT)
    words = set(re.findall(r'"([a-zA-Z_]+)"', code))
    assert words == {
        "import", "layer", "given", "param", "const", "fn", "let", "where", "find", "argmin_", "argmax_", "using",
        "return", "for", "until", "in",
    }  # fmt: skip


def test_cache_survives_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = grammar.cache_file(TEXT, "1")
    assert path is not None
    assert Path(path).parent == tmp_path / "implicitdsl"
    assert path != grammar.cache_file(TEXT + " ", "1")
    assert path != grammar.cache_file(TEXT, "2")
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert grammar.cache_file(TEXT, "1") is None


@pytest.mark.parametrize("damage", [b"", b"not a pickle", None])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "tables"
    grammar.build(TEXT, Build(), cache_path=str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    parser = grammar.build(TEXT, Build(), cache_path=str(path))
    assert [t.type for t in parser.lex("find z")] == ["FIND", "NAME"]
    assert path.read_bytes().split(b"\n")[0] == whole.split(b"\n")[0]
    assert path.stat().st_size > 0.9 * len(whole)


def test_lark_is_imported_late() -> None:
    code = (
        "import sys; import implicitdsl.syntax.parser as p, implicitdsl.syntax.formatter\n"
        "assert 'lark' not in sys.modules\n"
        "from implicitdsl.ground.source import Source; p.parse(Source('x', 'return 1')); assert 'lark' in sys.modules\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_only_this_room_knows_lark() -> None:
    package = Path(grammar.__file__).parent.parent
    users = {p.relative_to(package).parts[0] for p in package.rglob("*.py") if "import lark" in p.read_text("utf-8")}
    assert users == {"syntax"}


def test_parses_of_one_process_share_nothing() -> None:
    first, second = parse(Source("a", DEQ)), parse(Source("b", DEQ + "# more\n"))
    assert len(first.program.comments) == 3
    assert len(second.program.comments) == 4
