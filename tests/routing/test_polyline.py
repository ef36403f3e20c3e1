"""Encoded lines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.polyline import decode_polyline
from tests.routing.engines import encode

points = st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), max_size=20)


def test_the_example_of_the_format_itself() -> None:
    """Google's page works this line out step by step, with five decimals."""
    np.testing.assert_array_equal(
        decode_polyline("_p~iF~ps|U_ulLnnqC_mqNvxq`@", decimals=5), [(38.5, -120.2), (40.7, -120.95), (43.252, -126.453)]
    )


@given(points)
def test_what_was_encoded_comes_back_to_the_sixth_decimal(line: list[tuple[float, float]]) -> None:
    decoded = decode_polyline(encode(line))

    assert decoded.shape == (len(line), 2)
    np.testing.assert_allclose(decoded, np.array(line).reshape(-1, 2), atol=0.51e-6, rtol=0)


@pytest.mark.parametrize("text", ["_p~iF", "_p~iF~ps|", "_", " p~iF~ps|U", "\x7f?", "ä?", "~~~~~~~~?" * 2, "_~~~~~~~@?"])
def test_what_is_no_line_on_the_globe_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="line"):
        decode_polyline(text)


@given(st.text(max_size=30))
def test_any_text_is_a_line_on_the_globe_or_refused(text: str) -> None:
    try:
        places = decode_polyline(text)
    except ValueError:
        return
    assert (np.abs(places) <= (90, 180)).all()
