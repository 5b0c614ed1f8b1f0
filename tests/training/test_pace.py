"""The time left, of a run whose steps and validations take what the test says."""

from __future__ import annotations

import pytest

from slm.training.watch.progress import Pace


@pytest.mark.parametrize("resumed_at", [0, 40])
@pytest.mark.parametrize(("step_s", "validation_s"), [(1.0, 40.0), (90.0, 5.0), (0.01, 0.0)])
def test_the_time_left_is_what_is_left(resumed_at: int, step_s: float, validation_s: float) -> None:
    """100 steps more, validated every 8, the first one six times as long. A mean over half a minute knew nothing of
    steps of 90 s, and had two steps and a validation of 40 s to tell by: 2,000 s where 100 were left."""
    now, last_step = 0.0, resumed_at + 100
    pace = Pace(8, lambda: now)
    ends: dict[int, float] = {}
    told: dict[int, float | None] = {}
    for step in range(resumed_at + 1, last_step + 1):
        now += step_s * (6 if step == resumed_at + 1 else 1)
        pace.step(step)
        if step % 8 == 0 or step == last_step:
            pace.validation_begins()
            now += validation_s
            pace.validation_ends()
        ends[step], told[step] = now, pace.left(last_step)
    assert told[resumed_at + 1] is None
    for step in range(resumed_at + 8, last_step):
        assert told[step] == pytest.approx(ends[last_step] - ends[step], abs=1e-6), step
    assert told[resumed_at + 2] == pytest.approx(98 * step_s), "validations are not known yet"
