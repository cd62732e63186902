"""What a step is told as."""

import pytest

from pipeline.run.records import cosine_alarm


@pytest.mark.parametrize(
    ("precision", "allowed", "beyond"), [("fp32", (0.0, 9e-6, -9e-6), (2e-5, -2e-5)), ("bf16", (2e-5, 9e-3), (2e-2, -1.0))]
)
def test_a_gradient_along_the_parameters_is_an_alarm_beyond_the_rounding_of_the_precision(
    precision: str, allowed: tuple[float, ...], beyond: tuple[float, ...]
) -> None:
    assert [cosine_alarm(7, cosine, precision) for cosine in (None, *allowed)] == [None] * (1 + len(allowed))
    for cosine in beyond:
        told = cosine_alarm(7, cosine, precision)
        assert told is not None
        assert told.startswith("ALARM at step 7: ")
        assert f"the rounding of {precision} " in told
