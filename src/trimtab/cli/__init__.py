"""The command line: one file per noun, thin over the rooms below.

Exit codes: 0 done, 1 a verdict failed, 2 wrong use, 3 fault, 130 interrupted.
"""

from trimtab.cli.main import main

__all__ = ["main"]
