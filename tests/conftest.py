"""Puts this folder on the import path, so that tests import `tiny_env` and the like by name."""
