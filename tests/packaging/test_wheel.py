"""The wheel is complete: installed alone, outside the checkout, it checks and compiles a spec."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

COMPILE = """
import pathlib
import torch
import implicitdsl as imp

assert pathlib.Path(imp.__file__).is_relative_to(pathlib.Path({prefix!r})), imp.__file__
layer = imp.compile(pathlib.Path("deq.imp"), n=3)
z = layer(torch.ones(2, 3))
torch.testing.assert_close(z, torch.tanh(z @ layer.W.mT + 1), rtol=0, atol=1e-5)
"""

SPEC = """\
layer Deq(n):
  given x in R^n
  param W in SpectralBall(n, 0.9)
  find z in R^n such that z = tanh(W z + x)
  return z
"""


def run(*command: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    name = run(sys.executable, "-c", build, str(folder), cwd=ROOT).split()[-1]
    return folder / name


def test_the_wheel_holds_grammar_pages_and_types_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"implicitdsl/py.typed", "implicitdsl/_grammar/implicit.lark", "implicitdsl/ground/pages/IMP201.md"} <= names
    assert all(name.startswith(("implicitdsl/", "implicitdsl-")) for name in names)


def test_a_clean_environment_compiles_a_spec(wheel: Path, tmp_path: Path) -> None:
    """The dependencies come from this environment, by a .pth file that names its folder; the package does not: editable
    installs are .pth files themselves, and those are not followed a second time."""
    venv.create(tmp_path / "env", with_pip=False)
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = str(scripts / "python")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", str(wheel), cwd=tmp_path)
    (tmp_path / "deq.imp").write_text(SPEC)
    run(str(scripts / "implicitdsl"), "check", "deq.imp", cwd=tmp_path)
    run(python, "-c", COMPILE.format(prefix=str(tmp_path / "env")), cwd=tmp_path)
