"""Wrong specs are files: `tests/wrong/imp201_sum.imp` must raise IMP201, and its rendered text is golden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from implicitdsl.driver import check_source
from implicitdsl.ground.render import text
from implicitdsl.ground.source import Source

WRONG = sorted((Path(__file__).parent.parent / "wrong").glob("*.imp"))


@pytest.mark.parametrize("path", WRONG, ids=lambda p: p.stem)
def test_wrong_spec(path: Path, golden: Callable[[str, str], None]) -> None:
    source = Source(path.name, path.read_text(encoding="utf-8"))
    found = check_source(source)
    code = path.stem.split("_")[0].upper()
    if code.startswith("IMP"):
        assert code in {d.code for d in found}
        errors = {d.code for d in found if d.is_error}
        assert errors <= {code}, "one slip is one error"
    for d in found:
        assert d.code != "IMP999"
        assert 0 <= d.span.start <= d.span.end <= len(source.text)
    golden(f"wrong/{path.stem}.txt", text.render(found) + "\n")


def test_each_section_is_recovered() -> None:
    path = next(p for p in WRONG if p.stem == "several")
    found = check_source(Source(path.name, path.read_text(encoding="utf-8")))
    lines = {(d.line, d.code) for d in found if d.is_error}
    assert {(5, "IMP201"), (6, "IMP701"), (7, "IMP101"), (13, "IMP101")} <= lines
    assert any(line == 10 for line, _ in lines)
