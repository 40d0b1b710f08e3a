"""The page of registration: every documented method stands there, and what it names exists."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from implicitdsl.functions.trigonometric import SIN
from implicitdsl.ground.methods import Family, Method
from implicitdsl.language import LANGUAGE

ROOTS = (
    "direct schur picard anderson broyden newton chord newton_krylov levenberg_marquardt bisection peaceman_rachford",
    "implicit gmres bicgstab neumann phantom jfb unrolled",
)
ODES = (
    "euler midpoint heun rk4 implicit_euler trapezoid leapfrog yoshida4 "
    "bosh3 dopri5 tsit5 dopri8 kvaerno5 rodas5p expm",
    "checkpointed backsolve unrolled reversible",
)
OPTIMA = ("direct projection ipm riccati conic nlp", "kkt smoothed")
OPTIONS = {
    "picard": {"damping"},
    "anderson": {"depth", "damping", "ridge"},
    "broyden": {"memory"},
    "newton": {"line_search"},
    "peaceman_rachford": {"alpha"},
    "gmres": {"restart"},
    "neumann": {"terms"},
    "phantom": {"steps", "damping"},
    "unrolled": {"steps"},
}
WITH_CODE = [m for family in LANGUAGE.families for m in family.methods if m.code is not None]


@pytest.mark.parametrize("sentence, names", [("root", ROOTS), ("ode", ODES), ("optimum", OPTIMA)])
def test_every_documented_method_is_registered(sentence: str, names: tuple[str, str]) -> None:
    for role, expected in zip(("forward", "backward"), names, strict=True):
        assert {m.name for m in LANGUAGE.methods(sentence, role)} == set(expected.split())


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_the_documented_ones(name: str) -> None:
    found = LANGUAGE.method("root", "forward", name) or LANGUAGE.method("root", "backward", name)
    assert found is not None
    assert {o.name for o in found.options} - {"tol", "max_iter"} == OPTIONS[name]


@pytest.mark.parametrize("method", LANGUAGE.methods("root", "forward"), ids=lambda m: m.name)
def test_every_forward_method_has_tol_and_max_iter(method: Method) -> None:
    assert {"tol", "max_iter"} <= {o.name for o in method.options}


@pytest.mark.parametrize("method", WITH_CODE, ids=lambda m: m.name)
def test_options_agree_with_the_class_that_runs(method: Method) -> None:
    solver = method.load()
    fields = {field.name: field.default for field in dataclasses.fields(solver)}
    assert {o.name: o.default for o in method.options} == fields


def test_registration_is_immutable_and_replaces_by_name() -> None:
    changed = dataclasses.replace(SIN, lipschitz=2.0)
    extended = LANGUAGE.with_function(changed)
    assert extended.function_table["sin"].lipschitz == 2.0
    assert LANGUAGE.function_table["sin"].lipschitz == 1.0
    assert len(extended.functions) == len(LANGUAGE.functions)
    family = Family("riddle", (), None, "riddles")
    assert LANGUAGE.with_family(family).family("riddle") is family


def test_the_language_is_light() -> None:
    heavy = "print(sorted({'torch', 'sympy', 'cvxpy', 'numpy'} & set(sys.modules)))"
    code = f"import sys, implicitdsl.planner, implicitdsl.language; {heavy}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
