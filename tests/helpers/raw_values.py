"""A Hypothesis strategy for header values that no client should send."""

from hypothesis import strategies as st

from tests.helpers.tokens import forge

raw_values = st.one_of(
    st.binary(max_size=120),
    st.text(max_size=60).map(lambda text: text.encode("utf-8")),
    st.binary(max_size=60).map(lambda tail: b"ka_" + tail),
    st.binary(max_size=60).map(lambda tail: b"ka_live_" + tail),
    st.binary(max_size=20).map(lambda tail: forge().encode() + tail),
    st.binary(max_size=20).map(lambda head: head + forge().encode()),
)
