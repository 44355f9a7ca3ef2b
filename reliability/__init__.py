"""Does it keep its promises while things break? Real servers and workers, faults, load, and an audit. See __main__."""
