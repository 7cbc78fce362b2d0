"""One word on how an attack fared, from its health, so that a weak number is not taken for a robust victim."""

from collections.abc import Mapping
from typing import Any

from pqag.names import SCHEDULED

SOUND, STARVED, SATURATED = "sound", "starved of gradient", "saturated"
#: The share of zeros in the first gradient from which an attack is starved; the share of changed codes from which it is sound all the same;
#: the share of all that its loss gained, below which the second half of its looks at it gained hardly anything.
ZEROS, CHANGED, LATE = 0.5, 0.9, 0.05


def verdict(health: Mapping[str, Any], loss: str = "") -> str:
    """What the ``health`` of an attack, see ``pqag.attacks.health``, says.

    Starved of gradient: at least half of the first gradient is exactly zero; or the loss never rose, and less than nine tenths of the codes
    changed. Saturated: of what the loss gained, less than a twentieth came in the second half of the looks at it, and less than nine tenths
    of the codes changed. Sound otherwise. The loss counts as the largest so far, since some methods look at worse images too. A ``loss`` of
    ``names.SCHEDULED`` is another one at each step, so that its values say nothing of this kind.
    """
    if health["zero_gradients"] is not None and health["zero_gradients"] >= ZEROS:
        return STARVED
    if health["codes_changed"] >= CHANGED or loss in SCHEDULED:
        return SOUND
    first, *_, last = losses = health["loss"]
    gained = max(losses) - first
    if gained <= 0 or last <= first:
        return STARVED
    late = max(losses) - max(losses[: (len(losses) + 1) // 2])
    return SATURATED if late < LATE * gained else SOUND


def in_words() -> str:
    """The thresholds, for a caption."""
    starved = "at least half of the first gradient is exactly zero, or the loss never rose"
    saturated = "less than a twentieth of what the loss gained came in the second half of the attack"
    otherwise = "otherwise, if nine tenths of the codes changed, or for HAG, whose loss differs from step to step"
    return f"Verdict: {STARVED} if {starved}; {SATURATED} if {saturated}; {SOUND} {otherwise}."
