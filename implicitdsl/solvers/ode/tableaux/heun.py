"""Heun's method, the explicit trapezoidal rule, order 2 (Hairer, Nørsett & Wanner I, §II.1)."""

from ..tableau import Tableau

HEUN = Tableau("heun", 2, c=(1.0, 1.0), a=((1.0,), (0.5, 0.5)))
