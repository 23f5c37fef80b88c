"""`python -m onebase`: the command, where its script is not on the path."""

from onebase.cli import main

main()
