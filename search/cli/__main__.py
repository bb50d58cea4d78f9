"""`python -m search.cli` is the command `voxnas`."""

from search.cli import main

main()
