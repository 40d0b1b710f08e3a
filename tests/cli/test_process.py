"""The command line with the real compiler, as a process where that matters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from implicitdsl.cli import main

DEQ = """\
layer Deq(n, m):
  given x in R^m
  param W in SpectralBall(n, 0.9)
        U in R^(n, m)
  find z in R^n such that z = tanh(W z + U x)
  return z
"""
HEAVY = ("torch", "cvxpy", "sympy", "numpy")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def deq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "deq.imp"
    file.write_text(DEQ)
    return file


@pytest.mark.parametrize(
    "command",
    [
        "['check', 'deq.imp']",
        "['explain', 'deq.imp']",
        "['explain', 'IMP201']",
        "['emit', 'deq.imp', '--stage', 'plan']",
        "['fmt', '--check', 'deq.imp']",
    ],
)
def test_light_commands_import_nothing_heavy(deq: Path, command: str) -> None:
    probe = (
        f"import sys; from implicitdsl.cli import main; status = main({command}); "
        f"print(*(set({HEAVY}) & set(sys.modules)), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=deq.parent, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, ""), done.stdout


def test_module_and_script_are_the_same(deq: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "implicitdsl", "check", "-"],
        input=DEQ.replace("U x", "x"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "error[IMP201]" in done.stdout
    assert "--> <stdin>:5:" in done.stdout


def test_check_fix_applies_what_the_compiler_offers(deq: Path) -> None:
    deq.write_text(DEQ.replace("W z", "W * z"))
    assert main(["check", "deq.imp"]) == 1
    assert main(["check", "--fix", "deq.imp"]) == 0
    assert deq.read_text() == DEQ


@pytest.mark.parametrize(
    "stage, part",
    [
        ("spec", "param W in SpectralBall(n, 0.9)"),
        ("tokens", "tanh"),
        ("ast", "Find"),
        ("ir", "tanh"),
        ("plan", "implicit"),
        ("python", "def "),
    ],
)
def test_every_stage_can_be_printed(deq: Path, capsys: Capture, stage: str, part: str) -> None:
    assert main(["emit", "deq.imp", "--stage", stage]) == 0
    assert part in capsys.readouterr().out


def test_the_printed_spec_is_a_spec(deq: Path, capsys: Capture) -> None:
    deq.write_text("find z such that z = tanh(W z + x)\n")
    assert main(["emit", "deq.imp", "--stage", "spec"]) == 0
    deq.write_text(capsys.readouterr().out)
    assert main(["check", "deq.imp"]) == 0
    assert "IMP120" not in capsys.readouterr().out


@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_a_spec_is_explained(deq: Path, capsys: Capture, form: str) -> None:
    assert main(["explain", "deq.imp", "--format", form]) == 0
    assert "tanh" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["emit", "deq.imp", "--stage", "ir"], ["explain", "deq.imp"]])
def test_a_layer_that_does_not_exist_is_bad_usage(deq: Path, capsys: Capture, command: list[str]) -> None:
    assert main([*command, "--layer", "Deg"]) == 2
    assert "has no layer `Deg`; did you mean `Deq`?" in capsys.readouterr().err


def test_fmt_leaves_formatted_text_alone(deq: Path) -> None:
    assert main(["fmt", "deq.imp"]) == 0
    once = deq.read_text()
    assert main(["fmt", "--check", "deq.imp"]) == 0
    assert deq.read_text() == once
