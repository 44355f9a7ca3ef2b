"""Costs of a request, compared with a bare route and with other packages. Run with ``make bench``."""
