"""Units of time that several packages share."""

HOUR_S = 3600
HOUR_MS = 3_600_000
