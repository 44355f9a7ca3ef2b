"""An alias that a module under test imports for its annotations alone."""

from typing import Annotated

from fastapi import Depends


def find_user() -> str:
    """Stand in for a dependency on the caller."""
    return "ada"


SignedIn = Annotated[str, Depends(find_user)]
