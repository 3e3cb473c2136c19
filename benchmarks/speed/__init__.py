"""The parts of the speed suite, `python -m benchmarks`."""
