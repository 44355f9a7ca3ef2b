"""One command line for all tests of a session that run its commands in this process.

Typer builds all commands from the signatures of their functions each time that one of them is invoked: that took more
than half of the time of the command line's tests. Other processes run Typer as it is; so does `make test THOROUGH=1`.
"""

from __future__ import annotations

from functools import cache

import pytest
import typer.main


def share_commands(patch: pytest.MonkeyPatch) -> None:
    """Make Typer's runner build the commands of an application once."""
    patch.setattr("typer.testing._get_command", cache(typer.main.get_command))
