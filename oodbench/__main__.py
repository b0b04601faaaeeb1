"""``python -m oodbench`` is the same as ``oodbench``."""

from oodbench.cli import main

main()
