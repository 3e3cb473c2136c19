.PHONY: check format lint types spell test slow

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
	python -m pytest

slow:
	python -m pytest -m slow
