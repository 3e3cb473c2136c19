"""`python -m worldmodel` is the command line."""

from cli import main

main()
