"""The question by which a limiter finds out whether its servers answer, and allow what requests need."""

from fastapi_keyauth.domain.limit_sets import limit_set
from fastapi_keyauth.domain.limits import hour_limit
from fastapi_keyauth.domain.units import MAX_UNITS
from fastapi_keyauth.limiter.protocol import Charge, LimitCheck

PROBE = LimitCheck(
    "probe",
    "probes",
    limit_set((hour_limit(MAX_UNITS),), ()),
    (),
    age_s=0.0,
    is_fresh=True,
    owner_id="",
    charge=Charge("probe", 1),
)
"""Like the reservation of a request: it needs the same permissions, and its key and its address are in different slots,
which a node of a cluster rejects. It costs nothing, so that no usage is counted."""
