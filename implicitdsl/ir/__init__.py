"""Floor 2: the typed, matrix-level expression DAG and the model that holds it."""
