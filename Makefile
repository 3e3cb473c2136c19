.PHONY: check format lint types spell test slow fuzz

check: lint types spell test

format:
	ruff check --fix .
	ruff format .

lint:
	ruff check .
	ruff format --check .

types:
	mypy

spell:
	codespell

test:
	python -m pytest -n 2

fuzz:
	HYPOTHESIS_PROFILE=fuzz python -m pytest -n 2 tests/fuzz

slow:
	python -m pytest -n 2 -m slow
