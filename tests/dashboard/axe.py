"""axe-core, which checks what of accessibility can be automated."""

from __future__ import annotations

from typing import Literal

from axe_playwright_python.base import AXE_SCRIPT  # type: ignore[import-untyped]  # no types inside

from tests.dashboard.visitor import Visitor
from tests.helpers.thorough import IS_THOROUGH

LOOKS: list[tuple[int, Literal["light", "dark"]]] = [(1280, "light"), (360, "dark")]
if IS_THOROUGH:
    LOOKS += [(1280, "dark"), (640, "light")]
COLORS: list[tuple[str, Literal["light", "dark"], bool]] = [
    ("light", "light", False),
    ("dark", "dark", False),
    ("forced", "dark", True),
]
RUN_AXE = """async (part) => {
    const { violations } = await axe.run(part, { resultTypes: ["violations"] });
    return violations
        .filter(({ impact }) => ["serious", "critical"].includes(impact))
        .flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
}"""


def violations(visitor: Visitor, part: str = "html") -> list[str]:
    """Return what axe-core calls serious or critical in a part of the page."""
    if not visitor.page.evaluate("'axe' in window"):
        visitor.page.evaluate(AXE_SCRIPT)
    found: list[str] = visitor.page.evaluate(RUN_AXE, part)
    return found


def violations_in_every_look(visitor: Visitor, part: str) -> dict[str, list[str]]:
    """Return them by width and color scheme."""
    found = {}
    for width, color_scheme in LOOKS:
        visitor.page.set_viewport_size({"width": width, "height": 900})
        visitor.prefer(color_scheme)
        found[f"{part} {width} {color_scheme}"] = violations(visitor, part)
    return {look: serious for look, serious in found.items() if serious}


def violations_in_all_colors(visitor: Visitor, part: str) -> dict[str, list[str]]:
    """Return them in the light, the dark and the forced colors."""
    found = {}
    for name, color_scheme, is_forced in COLORS:
        visitor.prefer(color_scheme, forced_colors=is_forced)
        found[f"{part} {name}"] = violations(visitor, part)
    return {colors: serious for colors, serious in found.items() if serious}
