"""JSON, SARIF and GitHub annotations."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
from diagnostics_examples import DEQ, shapes_differ, with_fix

import implicitdsl as imp
from implicitdsl.ground.diagnostics import Applicability, Diagnostic
from implicitdsl.ground.render import github, sarif
from implicitdsl.ground.render import json as json_renderer
from implicitdsl.ground.source import Source, Span

SCHEMA = json.loads((Path(__file__).parent / "sarif-schema-2.1.0.json").read_text(encoding="utf-8"))
"""The schema of OASIS, verbatim."""
WRONG = Path(__file__).parent.parent / "wrong"


def _validate(log: object) -> None:
    jsonschema.Draft7Validator(SCHEMA, format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER).validate(log)


def test_json_has_exactly_the_keys_of_the_contract() -> None:
    (entry,) = json.loads(json_renderer.render([shapes_differ()]))
    assert entry == {
        "code": "IMP201",
        "level": "error",
        "message": "shapes differ in `W z + x`: (n) and (m)",
        "file": "deq.imp",
        "line": 6,
        "column": 14,
        "end_line": 6,
        "end_column": 21,
        "help": "project the input: `W z + U x` with `param U in R^(n, m)`",
        "fix": None,
    }
    assert json_renderer.render([]) == "[]"


def test_json_fix_is_an_edit_in_the_same_coordinates() -> None:
    (entry,) = json.loads(json_renderer.render([with_fix(DEQ, "W z", "z W")]))
    assert entry["fix"] == {
        "message": "write `z W`",
        "applicability": "safe",
        "edits": [{"line": 6, "column": 14, "end_line": 6, "end_column": 17, "text": "z W"}],
    }


def test_columns_are_code_points() -> None:
    source = Source("a.imp", "𝒳 = x")
    (entry,) = json.loads(json_renderer.render([Diagnostic("IMP101", "m", Span(4, 5), source)]))
    assert (entry["column"], entry["end_column"]) == (5, 6)


def test_sarif_is_valid_and_complete() -> None:
    info = Diagnostic("IMP120", "default", Span(0, 1), Source("dir with blank/a.imp", "z"), notes=("why",))
    findings = [shapes_differ(), with_fix(DEQ, "W z", "z W", Applicability.UNSAFE), info, shapes_differ()]
    log = json.loads(sarif.render(findings, version="1.2.3"))
    _validate(log)
    (run,) = log["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["IMP120", "IMP201", "IMP208"]
    assert [result["level"] for result in run["results"]] == ["error", "error", "note", "error"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["region"] == {"startLine": 6, "startColumn": 14, "endLine": 6, "endColumn": 21}
    assert (
        run["results"][2]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "dir%20with%20blank/a.imp"
    )
    (fix,) = run["results"][1]["fixes"]
    assert fix["artifactChanges"][0]["replacements"][0]["insertedContent"] == {"text": "z W"}
    assert "note: why" in run["results"][2]["message"]["text"]


def test_sarif_of_every_wrong_spec_is_valid() -> None:
    findings = [d for path in sorted(WRONG.glob("*.imp")) for d in imp.check(path)]
    log = json.loads(sarif.render(findings, version="0"))
    _validate(log)
    assert len(log["runs"][0]["results"]) == len(findings) > 60


def test_sarif_of_a_clean_run_is_valid() -> None:
    log = json.loads(sarif.render([], version="0"))
    _validate(log)
    assert log["runs"][0]["results"] == []


def test_github_annotations_are_escaped() -> None:
    source = Source("a,b:c.imp", "x\ny")
    line = github.render([Diagnostic("IMP103", "100% :: two\nlines", Span(2, 3), source)])
    assert line == (
        "::warning file=a%2Cb%3Ac.imp,line=2,col=1,endLine=2,endColumn=2,title=IMP103::100%25 :: two%0Alines"
    )


def test_github_levels_and_help() -> None:
    info = Diagnostic("IMP120", "default", Span(0, 1), DEQ)
    first, second = github.render([shapes_differ(), info]).splitlines()
    assert first.startswith("::error file=deq.imp,line=6,col=14,endLine=6,endColumn=21,title=IMP201::shapes differ")
    assert first.endswith("%0Ahelp: project the input: `W z + U x` with `param U in R^(n, m)`")
    assert second.startswith("::notice ")
