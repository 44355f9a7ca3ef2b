"""What version 0.1 did not have says since when it exists, and nothing that 0.1 had is gone without a word.

`names_0_1.json` is what `public_names.collect()` returns for the code of 0.1, with the metrics and the events of log
lines that its docs list. It never changes.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import fastapi_keyauth
from tests.helpers.packages import ROOT
from tests.helpers.public_names import collect, find_classes, find_description, find_entry, find_functions

NOTE = "Added in 0.2"
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
SECTION = CHANGELOG[CHANGELOG.index("## 0.2.0") : CHANGELOG.index("## 0.1.0")]

OLD: dict[str, list[str]] = json.loads(Path(__file__).with_name("names_0_1.json").read_text("utf-8"))

REMOVED = {
    # Methods that 0.1 never documented.
    *(f"auth.keys.{name}" for name in ("add", "patch", "record_leak", "replace_secret", "usage_of_many")),
    "auth.keys.revoke(actor)",
    "auth.keys.revoke(owner_id)",
    "KeyAuthSettings.find_dangers",
}
"""Names that only 0.1 has."""


@cache
def now() -> dict[str, list[str]]:
    """Return all names. Not called while pytest collects, since each of its processes would build the document."""
    return collect()


def new(kind: str) -> list[str]:
    """Return the names of a kind that 0.1 did not have."""
    return sorted(set(now()[kind]) - set(OLD[kind]))


def is_new(name: str) -> bool:
    """Return whether a class did not exist in 0.1."""
    return name not in OLD["names"] and not any(member.startswith(f"{name}.") for member in OLD["members"])


def has_note(text: str | None) -> bool:
    """Return whether a docstring, or an entry of one, says that something was added."""
    return NOTE in " ".join((text or "").split())


def documented_parameters() -> Iterator[tuple[str, str]]:
    """Yield new parameters of functions that 0.1 had, and the docstring of the function."""
    functions = find_functions()
    classes = find_classes()
    old_functions = {parameter.partition("(")[0] for parameter in OLD["parameters"]}
    for signature in new("parameters"):
        function = signature.partition("(")[0]
        if function not in old_functions:
            continue
        kind, _, method = function.rpartition(".")
        thing = functions.get(function) or classes.get(function) or inspect.getattr_static(classes[kind], method)
        yield signature, inspect.getdoc(thing) or ""


def test_new_names_say_since_when() -> None:
    classes = find_classes()
    things = {name: getattr(fastapi_keyauth, name) for name in new("names")}
    things |= {name: kind for name, kind in classes.items() if is_new(name)}
    assert len(things) > 15
    assert [name for name, thing in things.items() if not has_note(thing.__doc__)] == []


def test_new_members_say_since_when() -> None:
    classes = find_classes()
    members = [member.rpartition(".") for member in new("members")]
    added = [(kind, name) for kind, _, name in members if not is_new(kind)]
    assert len(added) > 50
    assert [(kind, name) for kind, name in added if not has_note(find_description(classes[kind], name))] == []


def test_new_parameters_say_since_when() -> None:
    added = list(documented_parameters())
    assert len(added) > 5
    without = [
        signature
        for signature, docstring in added
        if not has_note(find_entry(docstring, signature.partition("(")[2].removesuffix(")")))
    ]
    assert without == []


def test_only_what_is_listed_here_was_removed() -> None:
    gone = {name for kind, names in now().items() for name in set(OLD[kind]) - set(names)}
    assert {name for name in gone if name.partition("(")[0] not in REMOVED} <= REMOVED


def test_the_changelog_names_what_was_removed() -> None:
    words = set(re.findall(r"\w+", SECTION))
    assert [name for name in REMOVED if re.findall(r"\w+", name)[-1] not in words] == []


def test_the_changelog_names_what_is_new() -> None:
    words = set(re.findall(r"\w+", SECTION))
    kinds = ("names", "settings", "codes", "events", "warnings")
    assert [name for kind in kinds for name in new(kind) if name not in words] == []
