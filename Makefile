.PHONY: check format lint types spell test slow fuzz bench docs linkcheck package lock audit

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

bench:
	OMP_NUM_THREADS=1 python -m benchmarks

slow:
	python -m pytest -n 2 -m slow

docs:
	python -m sphinx -b html -n -W --keep-going -j auto docs build/site

linkcheck:
	python -m sphinx -b linkcheck -j auto docs build/linkcheck

package:
	rm -rf build dist
	python -m build
	twine check --strict dist/*

LOCK = .ci/constraints.txt

lock:
	rm -rf .lock && python3 -m venv .lock
	.lock/bin/pip install torch==2.13.0
	.lock/bin/pip install -e ".[dev]"
	(head -1 $(LOCK); .lock/bin/pip freeze --exclude-editable | sed 's/+cpu//') > .lock/new
	mv .lock/new $(LOCK) && rm -rf .lock
	# the version of soupsieve that is pinned needs Python 3.11.5; uv.lock is for all from 3.11 on
	uv lock $$(sed '/^#/d; /^soupsieve=/d; s/^/-P /' $(LOCK))

audit:
	pip install pip-audit
	pip-audit --no-deps --disable-pip -r $(LOCK)
