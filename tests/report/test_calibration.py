import math

import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.report import calibration

# Two classes; logits (log 9, 0) are 90% sure of the first. Half of the rows belong to it.
LOGITS = np.array([[math.log(9), 0.0]] * 4)
SPLIT = make_batch({m: np.zeros((4, 1)) for m in ("sound", "flow", "image")}, [0, 1, 0, 0],
                   present={"sound": [True, True, False, False], "flow": np.zeros(4, bool)})


def test_before_and_after_over_the_examples_of_the_head():
    found = calibration.calibration(dict.fromkeys(("sound", "image", "fused", "flow"), LOGITS), SPLIT,
                                    {"sound": 2.0})
    assert list(found) == ["sound", "image", "fused"]       # nothing has flow
    before, t, after = found["sound"]
    assert t == 2
    assert before[:3] == pytest.approx((0.9 - 0.5, -math.log(0.9 * 0.1) / 2,
                                        (2 * 0.1**2 + 2 * 0.9**2) / 2))
    # Divided by 2 the odds of 9 become 3.
    assert after[:3] == pytest.approx((0.75 - 0.5, -math.log(0.75 * 0.25) / 2,
                                       (2 * 0.25**2 + 2 * 0.75**2) / 2))
    assert after.bins.count.sum() == 2
    assert found["fused"].after is None and found["fused"].before.ece == pytest.approx(0.15)


def test_table_leaves_out_what_a_head_does_not_have():
    found = calibration.calibration(dict.fromkeys(("fused", "sound", "image"), LOGITS), SPLIT,
                                    {"sound": 2.0})
    del found["image"]
    assert calibration.table(found, ["sound"]) == (
        "| head  | temperature |           ECE |           NLL |         Brier |\n"
        "| ----- | ----------: | ------------: | ------------: | ------------: |\n"
        "| sound |        2.00 | 0.400 → 0.250 | 1.204 → 0.837 | 0.820 → 0.625 |\n"
        "| fused |             |         0.150 |         0.655 |         0.420 |\n")
