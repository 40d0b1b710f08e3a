"""Timings against other libraries, each beside its accuracy. `make bench`; peers live in an environment of their own."""
