"""What every command needs of a terminal: messages, exit statuses and plain facts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

FAILED = 1
WRONG_USAGE = 2
_TABLE_WIDTH = 80


def console() -> Any:
    """Progress and messages, on stderr."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a user's mistake into one line and the exit status."""
    from gymnasium.error import Error as GymnasiumError

    from worldmodel.config import ConfigError
    from worldmodel.data import ReplayBufferError
    from worldmodel.interrupt import InterruptedRunError
    from worldmodel.run import RunError

    try:
        yield
    except ReplayBufferError as error:
        fail(str(error), FAILED)
    except (ConfigError, ValueError, GymnasiumError) as error:
        fail(str(error), WRONG_USAGE)
    except InterruptedRunError as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(FAILED) from None
    except (RunError, OSError) as error:
        fail(str(error), FAILED)
    except MemoryError as error:
        fail(f"not enough memory: {error}", FAILED)
    except KeyboardInterrupt:
        fail("stopped", FAILED)


def fail(message: str, status: int) -> NoReturn:
    """Tell an error in one line and exit."""
    typer.echo("Error: " + " ".join(message.split()), err=True)
    raise typer.Exit(status)


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Print on stdout, as YAML or as one JSON object."""
    import yaml

    text = (
        json.dumps(facts)
        if as_json
        else yaml.safe_dump(facts, sort_keys=False, allow_unicode=True).rstrip()
    )
    typer.echo(text)


def print_metrics(runs: list[dict[str, Any]], as_json: bool) -> None:
    """The metrics of runs: a table, or one JSON object."""
    from worldmodel.evaluation import comparison_table, metrics_table

    if as_json:
        typer.echo(json.dumps(runs[0] if len(runs) == 1 else {"runs": runs}, allow_nan=False))
    else:
        print_table(metrics_table(runs[0]) if len(runs) == 1 else comparison_table(runs))


def print_table(table: Any) -> None:
    """Print a table of rich on stdout, where a narrow terminal wraps lines and crops no number."""
    from rich.console import Console

    console = Console(soft_wrap=False, highlight=False)
    console.width = max(console.width, _TABLE_WIDTH)
    console.print(table)
