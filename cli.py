"""The command line of a clone, `python cli.py`; it is `worldmodel.cli`."""

from worldmodel.cli import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
