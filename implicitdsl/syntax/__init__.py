"""Floor 2: text to tokens to `ast.Program`, and back (`printer`)."""
