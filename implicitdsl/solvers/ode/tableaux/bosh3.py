"""Bogacki–Shampine 3(2), 3 evaluations a step (Appl. Math. Lett. 2, 1989). Interpolation: Hermite's cubic."""

from ..tableau import Tableau

BOSH3 = Tableau(
    "bosh3",
    3,
    c=(1 / 2, 3 / 4, 1.0),
    a=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    error=(5 / 72, -1 / 12, -1 / 9, 1 / 8),
    control=3,
)
