"""The files of the key page, with headers that allow nothing from elsewhere."""

import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from urllib.parse import quote

from starlette.responses import Response

from fastapi_keyauth.http.dashboard.options import DashboardOptions

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# No inline code, nothing from other origins, no frame around the page, no markup from strings (Trusted Types).
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
}
_IN_THE_FRAME = ("main.js", "theme.js")  # the others are imported; preloads spare a round trip for each level
_PLACE = re.compile(r"\{\{(\w+)\}\}")
FOR_EVER = "public, max-age=31536000, immutable"


class Page:
    """The page without any data: an HTML frame, stylesheets, scripts.

    Args:
        options: What the page knows about its application.
    """

    def __init__(self, options: DashboardOptions) -> None:
        self._options = options

    @cached_property
    def _files(self) -> Mapping[str, bytes]:
        return dict(_read(files("fastapi_keyauth.http.dashboard") / "static", ""))

    @cached_property
    def version(self) -> str:
        """Hash over all files. It is part of their URLs, so browsers may cache them without a limit."""
        digest = hashlib.sha256()
        for name, content in sorted(self._files.items()):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:16]

    def page(self, path: str) -> Response:
        """Return the HTML frame.

        Args:
            path: Requested path within the application, with or without a trailing slash. Links are relative to it, so
                that mounts and the prefix of a proxy do not matter.
        """
        here, ups = _base_of(path), "../" * (path.count("/") - 1)
        assets = f"{here}assets/{self.version}"
        known = {
            name: (ups or "./") + value[1:] if value and name.endswith(("_path", "_page")) else value
            for name, value in asdict(self._options).items()
        }
        own_style = f'<link rel="stylesheet" href="{html.escape(known["stylesheet_path"])}">'
        modules = [name for name in sorted(self._files) if name.endswith(".js") and name not in _IN_THE_FRAME]
        parts = {
            "title": html.escape(" · ".join(filter(None, ["API keys", self._options.product]))),
            "options": html.escape(json.dumps({**known, "data_path": f"{here}data/"})),
            "assets": html.escape(assets),
            "preloads": "\n".join(f'<link rel="modulepreload" href="{assets}/{name}">' for name in modules),
            "own_style": own_style if self._options.stylesheet_path else "",
        }
        # In one pass, because the value of an option is not part of the template.
        text = _PLACE.sub(lambda place: parts[place[1]], self._files["index.html"].decode("utf-8"))
        headers = {**SECURITY_HEADERS, "Cache-Control": "no-cache"}
        return Response(text, headers=headers, media_type=MEDIA_TYPES[".html"])

    def file(self, version: str, name: str) -> Response | None:
        """Return a stylesheet, script or picture, or None if it does not exist.

        While a new release is rolled out, the page of one worker may request files from a worker with another version.
        The browser must not cache those.
        """
        content = self._files.get(name)
        if content is None or name.endswith(".html"):
            return None
        caching = FOR_EVER if version == self.version else "no-store"
        media_type = MEDIA_TYPES[name[name.rindex(".") :]]
        return Response(content, headers={**SECURITY_HEADERS, "Cache-Control": caching}, media_type=media_type)


def _base_of(path: str) -> str:
    """Return the relative path of what is below the page: browsers drop everything after the last slash."""
    last = path.rpartition("/")[2]
    return f"./{quote(last)}/" if last else "./"


def _read(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield every file of a folder with its path below the folder. This also works in a zipped wheel."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        elif entry.name[entry.name.rfind(".") :] in MEDIA_TYPES:
            yield prefix + entry.name, entry.read_bytes()
