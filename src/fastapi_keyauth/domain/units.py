"""Units of time, and the units that limits count."""

HOUR_S = 3600
HOUR_MS = 3_600_000

REQUESTS = "requests"
"""The unit that needs no declaration."""
MAX_UNITS = 1_000_000_000
"""Units of a limit, and of one cost."""
NAME_PATTERN = r"^[a-z0-9_-]{1,32}$"
"""Names of limits and of units."""
