"""Euler's method, order 1 (Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, §I.7)."""

from ..tableau import Tableau

EULER = Tableau("euler", 1, c=(1.0,), a=((1.0,),))
