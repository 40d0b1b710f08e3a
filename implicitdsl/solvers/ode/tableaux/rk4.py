"""The classical method, order 4 (Kutta 1901; Hairer, Nørsett & Wanner I, table II.1.2)."""

from ..tableau import Tableau

RK4 = Tableau("rk4", 4, c=(0.5, 0.5, 1.0, 1.0), a=((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)))
