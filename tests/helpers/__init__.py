"""Helpers shared by tests in several folders: servers, workers, clocks and clients."""
