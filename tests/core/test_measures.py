"""Pictures and embeddings whose numbers are known."""

import numpy as np
import pytest

from facedancer.core import measures


def test_errors_count_where_target_and_truth_differ():
    target = np.zeros((4, 4, 3), np.uint8)
    truth, swap = target.copy(), target.copy()
    truth[:2] = 100
    swap[:2], swap[2:] = 75, 255  # what lies elsewhere does not count
    assert measures.errors_against_truth(swap, target, truth) == pytest.approx((25 / 255, 100 / 255))
    assert measures.errors_against_truth(swap, target, target + measures.CHANGED) is None
    assert measures.mean_difference(swap, target, np.zeros((4, 4), bool)) == 0


def test_cosines_are_of_directions_and_of_nothing_they_are_nought():
    a, b = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), np.array([[5.0, 0.0], [-2.0, 2.0], [1.0, 0.0]])
    np.testing.assert_allclose(measures.cosines(a, b), [1, 0, 0], atol=1e-12)
