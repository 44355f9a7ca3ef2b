"""The sdist and the wheel: contents and metadata."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from readme_renderer import markdown

from tests.docs.pages import find_anchors, find_rows
from tests.helpers.packages import CONFIGURATION, PROJECT, ROOT, VERSION, build, unpack

SOURCE = ROOT / "src" / "fastapi_keyauth"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the sdist and the wheel of the working tree."""
    sdist, wheel = build(ROOT, tmp_path_factory.mktemp("dist"), "sdist", "wheel")
    return sdist, wheel


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> Iterator[zipfile.ZipFile]:
    """Yield the wheel, open."""
    with zipfile.ZipFile(built[1]) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Metadata:
    """Return the metadata of the wheel, validated."""
    return Metadata.from_email(wheel.read(f"fastapi_keyauth-{VERSION}.dist-info/METADATA"), validate=True)


def test_the_wheel_contains_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    sources = {
        "fastapi_keyauth/" + path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"fastapi_keyauth-{VERSION}.dist-info/"
    described = {info + name for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert set(wheel.namelist()) == sources | described


@pytest.mark.parametrize(
    "pattern",
    [
        r"py\.typed",
        r"limiter/redis/lua/\w+\.lua",
        r"http/dashboard/static/index\.html",
        r"http/dashboard/static/\w+\.js",
        r"http/dashboard/static/dialogs/\w+\.js",
        r"http/dashboard/static/\w+\.css",
        r"http/dashboard/static/\w+\.svg",
        r"store/migrations/env\.py",
        r"store/migrations/versions/rev_0001_\w+\.py",
    ],
)
def test_the_wheel_contains_what_the_code_reads_at_run_time(wheel: zipfile.ZipFile, pattern: str) -> None:
    assert [name for name in wheel.namelist() if re.fullmatch(f"fastapi_keyauth/{pattern}", name)]


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    folder = unpack(built[0], tmp_path / "source")
    (again,) = build(folder, tmp_path / "dist", "wheel")
    assert again.name == built[1].name
    assert again.read_bytes() == built[1].read_bytes()


def test_the_sdist_contains_what_its_tests_and_docs_require(built: tuple[Path, Path], tmp_path: Path) -> None:
    folder = unpack(built[0], tmp_path)
    assert folder.name == f"fastapi_keyauth-{VERSION}"
    included = CONFIGURATION["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    listed = {path.strip("/").split("/")[0] for path in included}
    assert {path.name for path in folder.iterdir()} == {*listed, "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert not [path for path in folder.rglob("*") if path.suffix == ".pyc" or path.name == "__pycache__"]


def test_the_metadata_is_that_of_the_project(metadata: Metadata) -> None:
    assert metadata.name == PROJECT["name"]
    assert str(metadata.version) == VERSION
    assert metadata.summary == PROJECT["description"]
    assert str(metadata.requires_python) == ">=3.11"
    assert metadata.license_expression == "MIT"
    assert metadata.license_files == ["LICENSE"]
    assert metadata.provides_extra == sorted(PROJECT["optional-dependencies"])
    assert metadata.classifiers == PROJECT["classifiers"]


def test_every_listed_python_is_supported(metadata: Metadata) -> None:
    listed = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in metadata.classifiers or ()]
    versions = [match[1] for match in listed if match]
    assert versions[0] == "3.11"
    assert metadata.requires_python is not None
    assert all(metadata.requires_python.contains(version) for version in versions)


def test_the_readme_is_the_description_and_renders(metadata: Metadata) -> None:
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text("utf-8")
    html = markdown.render(metadata.description)
    assert html is not None
    assert "<h1" in html
    assert "<table" in html


def test_readme_changelog_and_security_policy_name_the_version() -> None:
    assert f"Version {VERSION}." in (ROOT / "README.md").read_text("utf-8")
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == VERSION
    supported = find_rows(ROOT / "SECURITY.md", "version", "security fixes")
    assert supported[0]["version"] == VERSION.rpartition(".")[0]


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_of_the_root_pages_lead_to_a_file_and_a_heading(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        if not path.startswith("https:"):
            file = ROOT / path if path else page
            assert file.is_file(), target
            assert not anchor or anchor in find_anchors(file), target
