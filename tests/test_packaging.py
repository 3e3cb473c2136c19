"""What is built and installed: the files of wheel and sdist, and a clone without symbolic links."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import worldmodel

ROOT = Path(__file__).parents[1]
SOURCES = ("worldmodel", "envs")


def tracked(folder, suffix):
    """The files of a folder of the repository with that suffix."""
    return {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob(f"*{suffix}") if p.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The names in the wheel and in the sdist, built from a copy of the sources."""
    pytest.importorskip("build")
    place = tmp_path_factory.mktemp("package")
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__", *(["envs"] if name == "worldmodel" else []))
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "cli.py"):
        shutil.copy(ROOT / name, place)
    (place / "tests").mkdir()
    (place / "tests" / "test_something.py").touch()
    (place / "data").mkdir()
    (place / "data" / "episode.bin").touch()
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", place]
    subprocess.run(words, check=True, capture_output=True)
    (wheel,) = (place / "dist").glob("*.whl")
    (sdist,) = (place / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = [m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()]
    return zipfile.ZipFile(wheel).namelist(), members


def test_the_wheel_holds_the_package_and_nothing_else(built):
    wheel, _ = built
    metadata = {name for name in wheel if ".dist-info/" in name}
    package = {*wheel} - metadata
    expected = tracked("worldmodel", ".py") | {"worldmodel/py.typed"}
    expected |= {f"worldmodel/{name}" for name in tracked("envs", ".py")}
    expected |= tracked("worldmodel/export/assets", "") | tracked("worldmodel/viz/assets", "")
    assert package == expected
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_the_sdist_holds_sources_and_neither_tests_nor_data(built):
    wheel, sdist = built
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"} <= {*sdist}
    assert not [name for name in sdist if name.startswith(("tests", "data", "docs", "results"))]
    built_from = {name.replace("worldmodel/envs/", "envs/") for name in wheel}
    assert {name for name in built_from if ".dist-info/" not in name} <= {*sdist}


def test_the_version_is_that_of_pyproject():
    assert f'\nversion = "{worldmodel.__version__}"\n' in (ROOT / "pyproject.toml").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == worldmodel.__version__


def test_a_clone_without_symbolic_links_finds_its_environments(tmp_path):
    shutil.copytree(ROOT / "envs", tmp_path / "envs")
    (tmp_path / "worldmodel").mkdir()
    shutil.copy(ROOT / "worldmodel" / "__init__.py", tmp_path / "worldmodel")
    (tmp_path / "worldmodel" / "envs").write_text("../envs")
    code = "from importlib.util import find_spec; print(find_spec('worldmodel.envs.vector').origin)"
    found = subprocess.check_output(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        text=True,
    )
    assert Path(found.strip()) == tmp_path / "envs" / "vector.py"
