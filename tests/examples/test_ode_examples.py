"""The examples of differential equations run and show what they claim."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(name: str, *arguments: str) -> Any:
    return runpy.run_path(str(EXAMPLES / name))["main"](list(arguments))


@pytest.mark.slow
def test_flow_short(tmp_path: Path) -> None:
    picture = tmp_path / "flows.png"
    figures = run("flows/train.py", "--fast", "--out", str(picture))["two moons"]
    assert figures["flow"] < figures["gaussian"] - 0.05
    assert abs(figures["mass"] - 1) < 1e-3
    assert figures["round_trip"] < 2e-3
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_hamiltonian_networks_keep_their_energy(tmp_path: Path) -> None:
    picture = tmp_path / "hamiltonian.png"
    result = run("hamiltonian/train.py", "--fast", "--out", str(picture))
    for name in ("energy", "kinetic + potential"):
        assert result[name]["drift"] < 0.6 * result["any field"]["drift"]
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_memory_does_not_grow_with_depth(tmp_path: Path) -> None:
    picture = tmp_path / "ode_net.png"
    result = run("ode_net/train.py", "--fast", "--out", str(picture))
    ode, rk, residual = (result[name] for name in ("ODE-Net", "RK-Net", "ResNet"))
    assert ode["bytes_4"] == ode["bytes_1"]
    assert rk["bytes_4"] > 2 * rk["bytes_1"]
    assert residual["bytes_4"] > 2 * residual["bytes_1"]
    assert ode["parameters"] == rk["parameters"] < residual["parameters"] / 4
    assert ode["error"] < 0.6
    assert picture.stat().st_size > 10_000


@pytest.mark.slow
def test_a_flow_on_the_line_cannot_square(tmp_path: Path) -> None:
    picture = tmp_path / "squares.png"
    errors = run("squares/train.py", "--fast", "--out", str(picture))
    assert errors["ODE-Net"] > 9 / 160 - 1e-4  # the best of all increasing functions, whatever the training
    assert errors["ResNet"] < 0.02
    assert errors["augmented"] < 0.8 * 9 / 160
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_latent_ode_takes_irregular_times(tmp_path: Path) -> None:
    picture = tmp_path / "latent_ode.png"
    result = run("latent_ode/train.py", "--fast", "--out", str(picture))
    found = {name: numbers[30] for name, numbers in result.items()}
    assert found["latent ODE"]["likelihood"] > found["RNN with Δt"]["likelihood"] + 2
    assert found["latent ODE"]["rmse"] < 2
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_lagrangian_network_keeps_its_energy(tmp_path: Path) -> None:
    picture = tmp_path / "lagrangian.png"
    result = run("lagrangian/train.py", "--fast", "--out", str(picture))["pendulum"]
    assert result["Lagrangian"]["drift"] < 0.6 * result["any acceleration"]["drift"]
    assert result["Lagrangian"]["near"] < 0.05
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_latent_rate_of_events(tmp_path: Path) -> None:
    picture = tmp_path / "poisson.png"
    result = run("poisson/train.py", "--fast", "--out", str(picture))
    # the true rate's integral over [0, 10] in closed form: the tails of the burst reach no further
    wave = 15 + 1.2 / 1.5 * (1 - math.cos(15)) + 5 * math.sqrt(math.pi / 2)
    assert abs(result["true rate"]["expected"] - wave) < 2e-4
    assert result["latent rate"]["likelihood"] > result["constant rate"]["likelihood"] + 2
    assert abs(result["latent rate"]["expected"] - result["constant rate"]["expected"]) < 1
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_reaction_learnt_through_implicit_steps(tmp_path: Path) -> None:
    picture = tmp_path / "reaction.png"
    result = run("reaction/train.py", "--fast", "--out", str(picture))
    # zeros of the trace of the reaction's Jacobian at rest, found by SciPy's fsolve and brentq
    assert result["hopf"]["true"] == pytest.approx([0.0260232, 0.0280000], abs=1e-5)
    assert result["rest"] < 0.005  # of a coverage between 0.13 and 0.25
    assert 0.035 < result["width"] < 0.045
    assert result["oscillating"]["true"] >= 8
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_probability_flow_is_normalised_and_invertible(tmp_path: Path) -> None:
    picture = tmp_path / "score_flow.png"
    figures = run("score_flow/train.py", "--fast", "--out", str(picture))["eight Gaussians"]
    assert abs(figures["mass"] - 1) < 0.01  # whatever the network has learnt
    assert figures["round_trip"] < 0.05
    # a Gaussian of the data's own covariance, 2 + 0.15^2 either way
    assert figures["model"] < math.log(2 + 0.15**2) + 1 + math.log(2 * math.pi) - 0.1
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_two_bodies_keep_their_energy(tmp_path: Path) -> None:
    picture = tmp_path / "two_body.png"
    result = run("two_body/train.py", "--fast", "--out", str(picture))
    for name in ("energy", "kinetic + potential"):
        assert result[name]["drift"] < 0.5 * result["any field"]["drift"]
    assert picture.stat().st_size > 20_000
