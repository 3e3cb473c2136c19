"""`python -m worldmodel` is the command line."""

from worldmodel.cli import main

main()
