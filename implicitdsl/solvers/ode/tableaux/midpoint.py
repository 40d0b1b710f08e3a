"""The explicit midpoint rule, order 2 (Runge 1895; Hairer, Nørsett & Wanner I, §II.1)."""

from ..tableau import Tableau

MIDPOINT = Tableau("midpoint", 2, c=(0.5, 1.0), a=((0.5,), (0.0, 1.0)))
