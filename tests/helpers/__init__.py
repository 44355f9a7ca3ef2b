"""Helpers that tests of several folders share: servers, workers, clocks, clients."""
