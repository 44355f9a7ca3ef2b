"""The CI workflow and the pre-commit hooks: both run what the Makefile runs."""

from __future__ import annotations

import os
import re
from typing import Any

import yaml

from tests.helpers.packages import PROJECT, ROOT

SCRIPT = ROOT / ".ci" / "run"
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def load(path: str) -> dict[str, Any]:
    """Return a YAML file of the project."""
    document: dict[str, Any] = yaml.safe_load((ROOT / path).read_text("utf-8"))
    return document


def recipe_of(target: str) -> list[str]:
    """Return the commands of a target of the Makefile."""
    match = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert match, target
    return [line.strip() for line in match[1].splitlines()]


def test_ci_runs_the_script_on_every_listed_python() -> None:
    (job,) = load(".github/workflows/ci.yml")["jobs"].values()
    listed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert set(listed) <= set(job["strategy"]["matrix"]["python"])
    (step,) = [step for step in job["steps"] if "run" in step]
    assert ROOT / step["run"] == SCRIPT
    assert os.access(SCRIPT, os.X_OK)
    assert "PYTHON" in step["env"]


def test_ci_may_only_read_and_ends_in_time() -> None:
    workflow = load(".github/workflows/ci.yml")
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    assert job["timeout-minutes"] <= 60
    assert "secrets." not in (ROOT / ".github/workflows/ci.yml").read_text("utf-8")


def test_the_script_of_ci_runs_targets_that_exist() -> None:
    targets = re.findall(r"^make (\w+)$", SCRIPT.read_text("utf-8"), re.MULTILINE)
    assert targets == ["check", "test"]
    for target in targets:
        assert recipe_of(target)


def test_pre_commit_runs_commands_of_make_check_and_downloads_nothing() -> None:
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    commands = [command.replace("$(BIN)", ".venv/bin") for command in recipe_of("check")]
    for hook in repository["hooks"]:
        assert hook["entry"] in commands
        assert hook["language"] == "system"
        assert hook["pass_filenames"] is False
