"""Verdicts on attacks, from healths made by hand."""

import pytest

from pqag.show.verdicts import verdict


@pytest.mark.parametrize(
    ("losses", "zeros", "codes", "wanted"),
    [
        ([1, 2, 3, 4, 5, 6], 0.01, 0.3, "sound"),
        ([1, 2, 3, 4, 5, 6], 0.5, 1.0, "starved of gradient"),
        ([0, 0, 0, 0], 1.0, 0.0, "starved of gradient"),
        ([3, 3, 3, 2], 0.0, 0.5, "starved of gradient"),
        ([3, 3, 3, 2], 0.0, 0.9, "sound"),  # codes changed all the same
        # Of a gain of 100 the second half, from 96, brings 4 and then 5.
        ([0, 50, 96, 97, 100], 0.0, 0.89, "saturated"),
        ([0, 50, 95, 97, 100], 0.0, 0.89, "sound"),
        ([0, 50, 96, 97, 100], 0.0, 0.9, "sound"),
        # Square looks at worse images too: the largest so far is 5, 5, 9, 9, 9.
        ([5, 1, 9, 2, 9], None, 0.2, "saturated"),
        ([5, 1, 7, 2, 9], None, 0.2, "sound"),
        ([1, 5], 0.0, 0.2, "sound"),  # FGSM looks once, and at what is stored
    ],
)
def test_verdicts_by_hand(losses, zeros, codes, wanted):
    assert verdict({"loss": losses, "zero_gradients": zeros, "codes_changed": codes}) == wanted


def test_values_of_a_loss_that_changes_from_step_to_step_are_not_compared():
    health = {"loss": [3, 3, 3, 2], "zero_gradients": 0.0, "codes_changed": 0.5}
    assert verdict(health, "aod") == "starved of gradient" and verdict(health, "hag") == "sound"
    assert verdict(health | {"zero_gradients": 0.5}, "hag") == "starved of gradient"
