"""Where exports go: nothing of others is replaced, and errors are one line."""

import json

import pytest
from typer.testing import CliRunner
from untrained import TINY, untrained_run

import worldmodel
from worldmodel.cli import app
from worldmodel.extras import install_command
from worldmodel.models import WorldModel

REPORT = "<body><!-- dream --><!-- /dream --></body>"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run of the tiny environment."""
    return untrained_run(tmp_path_factory.mktemp("tiny"), env={"id": TINY})


def export(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_command_writes_a_page_that_a_later_one_replaces(tiny, tmp_path):
    page = tmp_path / "dream.html"
    first = export(tiny.path, "--to", page, "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["bytes"] == page.stat().st_size < 6_000_000
    assert export(tiny.path, "--to", page).exit_code == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["dream.html"]


def test_the_report_of_a_run_links_to_the_page_beside_it(tiny, tmp_path):
    report = tiny.path / "report.html"
    report.write_text(REPORT)
    tiny.export(tmp_path / "dream.html")
    assert report.read_text() == REPORT
    for _ in range(2):
        tiny.export(tiny.path / "dream.html")
        assert report.read_text().count('<a href="dream.html">') == 1
    report.write_text("<body>a report of an earlier version</body>")
    tiny.export(tiny.path / "dream.html")
    assert report.read_text() == "<body>a report of an earlier version</body>"


def test_a_page_needs_an_existing_directory(tiny, tmp_path):
    result = export(tiny.path, "--to", tmp_path / "missing" / "dream.html")
    assert result.exit_code == 2
    assert "expected a file in an existing directory" in result.output


@pytest.mark.parametrize("name", ["dream.htm", "model.onnx", "a.b/c.d"])
def test_another_suffix_is_refused(tiny, tmp_path, name):
    result = export(tiny.path, "--to", tmp_path / name)
    assert result.exit_code == 2
    assert "expected NAME.html for a page, or a directory" in result.output
    assert not list(tmp_path.iterdir())


def test_files_of_others_stay(tiny, tmp_path):
    page, folder = tmp_path / "mine.html", tmp_path / "mine"
    page.write_text("<html>")
    folder.mkdir()
    (folder / "world.json").write_text('{"format": "another"}')
    for target in (page, folder):
        result = export(tiny.path, "--to", target)
        assert result.exit_code == 2
        assert "not an earlier export" in result.output
    assert page.read_text() == "<html>"
    assert [entry.name for entry in folder.iterdir()] == ["world.json"]
    (folder / "world.json").write_text('{"format": "worldmodel-onnx"}')
    (folder / "notes.txt").write_text("mine")
    assert "it holds notes.txt" in export(tiny.path, "--to", folder).output


def test_a_failed_export_leaves_the_earlier_page(tiny, tmp_path, monkeypatch):
    page = tmp_path / "dream.html"
    tiny.export(page)
    before = page.read_bytes()

    def fail(path):
        raise OSError("full")

    monkeypatch.setattr("worldmodel.files.sync", fail)
    with pytest.raises(OSError, match="full"):
        tiny.export(page)
    assert page.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["dream.html"]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("decoder", "examples.own_decoder:MyDecoder"),
        ("predictor", "examples.own_predictor:MyPredictor"),
    ],
)
def test_a_page_refuses_custom_parts(tmp_path, monkeypatch, part, name):
    monkeypatch.syspath_prepend(worldmodel.__file__.rpartition("/worldmodel/")[0])
    run = untrained_run(tmp_path, env={"id": TINY}, model={part: name})
    with pytest.raises(ValueError, match=f"cannot run the {part} '{name}'"):
        run.export(tmp_path / "dream.html")
    assert not (tmp_path / "dream.html").exists()


def test_a_page_accepts_a_custom_encoder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(worldmodel.__file__.rpartition("/worldmodel/")[0])
    encoder = "examples.own_encoder:MyEncoder"
    run = untrained_run(tmp_path, env={"id": TINY}, model={"encoder": encoder})
    assert run.export(tmp_path / "dream.html")["starts"].endswith("of held-out episodes")


def test_a_model_without_heads_is_refused(tiny, tmp_path, monkeypatch):
    spec = tiny.model.spec.model_copy(update={"heads": ("reward_head",)})
    monkeypatch.setattr(tiny, "model", WorldModel(spec))
    with pytest.raises(ValueError, match="has no termination_head"):
        tiny.export(tmp_path / "dream.html")


def test_an_unfinished_run_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    result = export(tmp_path, "--to", tmp_path / "dream.html")
    assert result.exit_code == 1
    assert "holds no model yet" in result.output
    assert "Traceback" not in result.output


def test_a_missing_library_names_the_extra(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("worldmodel.extras.find_spec", lambda name: None)
    result = export(tiny.path, "--to", tmp_path / "onnx")
    assert result.exit_code == 1
    assert install_command("onnx") in " ".join(result.output.split())
    assert not (tmp_path / "onnx").exists()
