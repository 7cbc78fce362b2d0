import numpy as np
import pytest

from pqag.show import distortion


def test_the_norm_of_a_change_by_hand():
    images = np.zeros((2, 3, 2, 2), np.uint8)
    changed = images.copy()
    changed[1, 0, 0, 0], changed[1, 2, 1, 1] = 153, 204  # 0.6 and 0.8
    assert distortion.l2(changed, images).tolist() == pytest.approx([0, 1])
    assert distortion.l2(images, changed).tolist() == pytest.approx([0, 1])  # uint8 must not wrap around


def test_a_curve_by_hand():
    """Queries in the order of their changes, 1, 2 and 5; the one without relevant items is left out. Of one nothing was found: it is never
    attacked, but counts among all."""
    found = distortion.curve(np.array([5.0, 1, 9, 0, 2]), [0.9, 0.6, None, 0.2, 0.3], [0.0, 0.3, None, 0.2, 0.6])
    assert found["attacked"].tolist() == [0, 1, 2, 3] and set(found["queries"]) == {4}
    assert found["l2_max"].tolist() == [0, 1, 2, 5]
    assert found["l2_mean"].tolist() == pytest.approx([0, 1 / 4, 3 / 4, 8 / 4])
    assert found["map"].tolist() == pytest.approx([50, 42.5, 50, 27.5])
