"""The evaluation of the tiny model, done once for all tests of this folder."""

import pytest
from reported import reported


@pytest.fixture(scope="session")
def tiny_report(tmp_path_factory):
    return reported(tmp_path_factory.mktemp("report"))
