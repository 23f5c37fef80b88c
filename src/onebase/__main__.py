"""`python -m onebase`: the command, if its script is not on the PATH."""

from onebase.cli import main

main()
