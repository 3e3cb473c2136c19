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
	python -m pytest -n 2

slow:
	python -m pytest -n 2 -m slow
