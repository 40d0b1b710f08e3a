"""The command line, against a compiler for which `BAD` is an error with a safe fix, `meh` a warning, `note` an info."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import implicitdsl
from implicitdsl.cli import main
from implicitdsl.ground.codes import CODES
from implicitdsl.ground.diagnostics import Applicability, Diagnostic, Edit, Fix
from implicitdsl.ground.errors import SpecError
from implicitdsl.ground.source import Source, Span

WORDS = {"BAD": "IMP201", "meh": "IMP103", "note": "IMP120"}


def check_source(source: Source) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    for word, code in WORDS.items():
        start = source.text.find(word)
        if start >= 0:
            at = Span(start, start + len(word))
            fixes = (Fix("write `good`", (Edit(at, "good"),), Applicability.SAFE),) if word == "BAD" else ()
            found.append(Diagnostic(code, f"saw {word}", at, source, fixes=fixes))
    return found


def refuse(source: Source) -> None:
    found = check_source(source)
    if any(d.is_error for d in found):
        raise SpecError(found, "rendered")


def emit(source: Source, stage: str, layer: str | None) -> str:
    refuse(source)
    return f"{stage} {layer} {source.text.strip()}"


def explain(source: Source, layer: str | None, form: str) -> str:
    refuse(source)
    return f"{form} {layer}"


def format_source(source: Source) -> str:
    refuse(source)
    return source.text.replace("\r\n", "\n").replace("  ", " ")


@pytest.fixture(autouse=True)
def small_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = types.ModuleType("implicitdsl.driver")
    for function in (check_source, emit, explain, format_source):
        setattr(driver, function.__name__, function)
    monkeypatch.setitem(sys.modules, "implicitdsl.driver", driver)
    monkeypatch.setattr(implicitdsl, "driver", driver, raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("text, status", [("fine", 0), ("meh", 0), ("note", 0), ("BAD", 1), ("BAD meh", 1)])
def test_check_fails_only_on_errors(folder: Path, text: str, status: int) -> None:
    (folder / "a.imp").write_text(text)
    assert main(["check", "a.imp"]) == status


def test_check_prints_findings_and_a_summary(folder: Path, capsys: Capture) -> None:
    (folder / "a.imp").write_text("BAD meh note\n")
    main(["check", "a.imp"])
    out = capsys.readouterr().out
    assert "error[IMP201]: saw BAD\n  --> a.imp:1:1\n   |\n 1 | BAD meh note\n   | ^^^\n" in out
    assert "info[IMP120]: saw note\n  --> a.imp:1:9\n\n1 error, 1 warning, 1 info\n" in out
    assert "\x1b" not in out


def test_verbose_shows_the_source_of_infos(folder: Path, capsys: Capture) -> None:
    (folder / "a.imp").write_text("note\n")
    main(["check", "-v", "a.imp"])
    assert " 1 | note\n   | ^^^^\n" in capsys.readouterr().out


def test_check_of_a_clean_file_says_so(folder: Path, capsys: Capture) -> None:
    (folder / "a.imp").write_text("fine\n")
    main(["check", "a.imp"])
    assert capsys.readouterr().out == "no errors, no warnings\n"


def test_check_searches_directories_but_not_hidden_ones(folder: Path, capsys: Capture) -> None:
    for name in ("b.imp", "sub/a.imp", ".hidden/c.imp", "sub/other.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("meh")
    assert main(["check", ".", "b.imp", "--format", "json"]) == 0
    assert [entry["file"] for entry in json.loads(capsys.readouterr().out)] == ["b.imp", str(Path("sub/a.imp"))]


def test_check_reads_stdin(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    stdin(monkeypatch, "x BAD")
    assert main(["check", "-"]) == 1
    assert "--> <stdin>:1:3" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["json", "sarif", "github"])
def test_machine_formats_hold_every_level(folder: Path, capsys: Capture, form: str) -> None:
    (folder / "a.imp").write_text("BAD meh note\n")
    assert main(["check", "a.imp", "--format", form]) == 1
    out = capsys.readouterr().out
    assert all(code in out for code in WORDS.values())
    if form != "github":
        json.loads(out)


@pytest.mark.parametrize(
    "setup, argument, message",
    [
        (lambda d: None, "gone.imp", "cannot read `gone.imp`: No such file or directory"),
        (lambda d: (d / "a.imp").write_bytes(b"ok \xff"), "a.imp", "cannot read `a.imp`: not UTF-8 at byte 3"),
        (lambda d: (d / "empty").mkdir(), "empty", "no *.imp file in `empty`"),
    ],
    ids=["missing", "not UTF-8", "empty directory"],
)
@pytest.mark.parametrize("command", [["check"], ["fmt"], ["fmt", "--check"]])
def test_unreadable_input_exits_with_2(folder: Path, capsys: Capture, command, setup, argument, message) -> None:
    setup(folder)
    assert main([*command, argument]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"implicitdsl: {message}\n"
    assert captured.out == ""


def test_readable_files_are_still_checked_beside_unreadable_ones(folder: Path, capsys: Capture) -> None:
    (folder / "a.imp").write_text("BAD")
    assert main(["check", "gone.imp", "a.imp"]) == 2
    assert "IMP201" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["check"], ["check", "--format", "xml", "a"], ["emit", "a.imp"], ["emit", "a", "--stage", "x"]]
)
def test_bad_usage_exits_with_2(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: implicitdsl" in capsys.readouterr().err


def test_fix_rewrites_the_file_until_nothing_is_left(folder: Path, capsys: Capture) -> None:
    file = folder / "a.imp"
    file.write_bytes(b"\xef\xbb\xbfBAD\r\nBAD meh\r\n")
    assert main(["check", "--fix", "a.imp"]) == 0
    assert file.read_bytes() == b"\xef\xbb\xbfgood\r\ngood meh\r\n"
    captured = capsys.readouterr()
    assert "a.imp: 2 fixes applied" in captured.err
    assert captured.out.endswith("\n1 warning\n")


def test_fix_of_stdin_goes_to_stdout(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    stdin(monkeypatch, "BAD meh")
    assert main(["check", "--fix", "-"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "good meh\n"
    assert "warning[IMP103]" in captured.err


def test_a_fix_that_makes_it_worse_is_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(source: Source) -> list[Diagnostic]:
        at = Span(0, 1)
        fix = Fix("double", (Edit(at, "xx"),), Applicability.SAFE)
        return [Diagnostic("IMP101", "x", at, source, fixes=(fix,)) for _ in range(source.text.count("x"))]

    monkeypatch.setattr(implicitdsl.driver, "check_source", worse)  # type: ignore[attr-defined]  # set above
    (folder / "a.imp").write_text("x")
    assert main(["check", "--fix", "a.imp"]) == 1
    assert (folder / "a.imp").read_text() == "x"


def test_check_without_fix_changes_nothing(folder: Path) -> None:
    (folder / "a.imp").write_text("BAD")
    main(["check", "a.imp"])
    assert (folder / "a.imp").read_text() == "BAD"


def test_emit_and_explain_reach_the_driver(folder: Path, capsys: Capture) -> None:
    (folder / "a.imp").write_text("x\n")
    assert main(["emit", "a.imp", "--stage", "ir", "--layer", "L"]) == 0
    assert main(["explain", "a.imp", "--format", "latex"]) == 0
    assert capsys.readouterr().out == "ir L x\nlatex None\n"


@pytest.mark.parametrize("command", [["emit", "a.imp", "--stage", "ir"], ["explain", "a.imp"], ["fmt", "a.imp"]])
def test_errors_of_a_spec_exit_with_1(folder: Path, capsys: Capture, command: list[str]) -> None:
    (folder / "a.imp").write_text("BAD\n")
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "error[IMP201]: saw BAD" in captured.err
    assert captured.out == ""
    assert (folder / "a.imp").read_text() == "BAD\n"


def test_explain_of_a_missing_file_exits_with_2(folder: Path, capsys: Capture) -> None:
    assert main(["explain", "gone.imp"]) == 2
    assert "cannot read `gone.imp`" in capsys.readouterr().err


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_page(code: str, capsys: Capture) -> None:
    assert main(["explain", code]) == 0
    out = capsys.readouterr().out
    assert out.startswith(code)
    assert "```" not in out


def test_a_page_is_found_in_lower_case_and_printed_raw_on_request(capsys: Capture) -> None:
    assert main(["explain", "imp201", "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("# IMP201")
    assert main(["explain", "IMP201", "--format", "latex"]) == 2


@pytest.mark.parametrize("code, near", [("IMP207", "IMP20"), ("IMP2011", "IMP201"), ("IMP", "IMP")])
def test_an_unknown_code_names_the_nearest(code: str, near: str, capsys: Capture) -> None:
    assert main(["explain", code]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"implicitdsl: no code {code}; did you mean {near}")
    assert captured.out == ""


def test_fmt_rewrites_only_what_changes(folder: Path, capsys: Capture) -> None:
    (folder / "a.imp").write_bytes(b"x  y\r\n")
    (folder / "b.imp").write_bytes(b"x y\n")
    assert main(["fmt", "--check", "."]) == 1
    assert capsys.readouterr().err == "would reformat a.imp\n"
    assert main(["fmt", "."]) == 0
    assert capsys.readouterr().err == "reformatted a.imp\n"
    assert (folder / "a.imp").read_bytes() == b"x y\r\n"
    assert main(["fmt", "--check", "."]) == 0


def test_fmt_of_stdin_is_a_filter(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    stdin(monkeypatch, "x  y\n")
    assert main(["fmt", "-"]) == 0
    assert capsys.readouterr().out == "x y\n"


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"implicitdsl {implicitdsl.__version__}\n"
    assert importlib.metadata.version("implicitdsl") == implicitdsl.__version__


def test_a_closed_pipe_is_not_an_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "implicitdsl", "explain", "IMP201"],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == b""
