"""The notebook of examples/ runs from top to bottom, and is committed without outputs."""

from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "worldmodel.ipynb"
SMALL = 'PRESET, UPDATES = "smoke", None\nSTEPS, PLAN_STEPS, AGENT_STEPS = 12, 5, 512\n'
MOVED = """
before, slider.value = view.value, 3
assert view.value == compare(3) != before
"""


def test_no_outputs_are_committed():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert {cell.execution_count for cell in code} == {None}


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path):
    client = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, 4)
    (given,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    given.source = SMALL
    notebook.cells.append(nbformat.v4.new_code_cell(MOVED))
    client.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert list((tmp_path / "results").glob("*/rl/*/agent.mp4"))
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output for output in shown if "image/png" in output.get("data", ())]
    widgets = [
        output
        for output in shown
        if "application/vnd.jupyter.widget-view+json" in output.get("data", ())
    ]
    assert len(pictures) >= 6
    assert len(widgets) == 1
