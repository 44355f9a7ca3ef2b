"""Hooks of the site: hidden test code is left out, the changelog is a page, and each page names the version."""

import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show the version below each page."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    config.copyright = f"fastapi-keyauth {version}"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the changelog. Its links lead from the top of the repository."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Remove comments: they hold code that only the tests of the page run."""
    return _COMMENT.sub("", markdown)
