"""Diagnostics as text, JSON, SARIF or GitHub annotations: one module and one function `render` for each."""
