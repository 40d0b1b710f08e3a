"""What `emit`, `explain` and `check` print after every stage: golden, and the same in every process and order."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from right_specs import BARE, DECLARED

from implicitdsl.driver import check_source, emit, explain
from implicitdsl.ground.render import text
from implicitdsl.ground.source import Source

SPECS = BARE | DECLARED
LOWERED = ["fixed_point", "root", "system", "deq", "energy", "two_blocks", "sublayer"]  # every stage, Python too
LOWERED += ["qp", "mpc"]
CHECKED = ["ode_bare", "event", "pde", "literals", "sets"]  # as far as the plan


def stage(name: str, which: str) -> str:
    source = Source(f"{name}.imp", SPECS[name])
    if which == "check":
        return text.render(check_source(source)) + "\n"
    if which == "explain":
        return explain(source)
    return emit(source, which)


@pytest.mark.parametrize("which", ["check", "spec", "ast", "ir", "plan", "explain"])
@pytest.mark.parametrize("name", [*LOWERED, *CHECKED])
def test_golden_stage(name: str, which: str, golden: Callable[[str, str], None]) -> None:
    golden(f"stages/{name}.{which}", stage(name, which))


@pytest.mark.parametrize("name", LOWERED)
def test_golden_python(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"stages/{name}.py.txt", stage(name, "python"))


def digests(names: list[str], stages: list[str]) -> dict[str, str]:
    return {f"{n}.{s}": hashlib.sha256(stage(n, s).encode()).hexdigest() for n in names for s in stages}


STAGES = ["check", "spec", "tokens", "ast", "ir", "plan", "explain"]


@pytest.mark.parametrize("seed", ["1", "4242"])
def test_nothing_depends_on_hash_seed_process_or_order(seed: str) -> None:
    code = (
        "import json, sys; from test_golden_stages import digests, SPECS, STAGES, LOWERED; names = list(SPECS)[::-1];"
        "print(json.dumps(digests(names, STAGES[::-1]) | digests(LOWERED[::-1], ['python'])))"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout) == digests(list(SPECS), STAGES) | digests(LOWERED, ["python"])
