"""Floor 1: source text and spans, diagnostics, the vocabulary of facts and of outcomes. Imports
nothing of the package.
"""
