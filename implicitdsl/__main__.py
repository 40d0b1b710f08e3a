"""`python -m implicitdsl` is `implicitdsl`."""

from __future__ import annotations

import sys

from implicitdsl.cli import main

if __name__ == "__main__":
    sys.exit(main())
