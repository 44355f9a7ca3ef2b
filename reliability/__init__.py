"""Fault-injection tests: real servers and workers, faults, load, and an audit. See __main__."""
