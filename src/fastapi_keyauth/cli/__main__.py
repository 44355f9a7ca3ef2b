"""``python -m fastapi_keyauth.cli``: the same as ``keyauth``."""

from fastapi_keyauth.cli import main

main()
