"""What requests cost, beside a bare route and beside other packages. Run it with ``make bench``."""
