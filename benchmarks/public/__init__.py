"""Public tasks with published results, each measured by one command."""
