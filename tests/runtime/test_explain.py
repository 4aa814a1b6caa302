"""Explaining labels, where a bundle can and where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgewright.runtime.bundle import Bundle
from edgewright.runtime.errors import UsageError
from edgewright.runtime.explain import Explainer, Explanation, overlay


def test_bundle_without_maps_says_how_to_get_them(tiny_opened: Bundle) -> None:
    with pytest.raises(UsageError, match="--explain"):
        Explainer(tiny_opened)


def test_overlay_marks_where_more_than_usual_speaks_for_the_label() -> None:
    seen = Image.new("RGB", (40, 40), (10, 20, 200))
    added = np.full((4, 4), -1.0, np.float32)
    added[0, 0] = 2.0
    pixels = np.asarray(overlay(Explanation("a", 0, added, seen))).astype(int)
    assert pixels[2, 2, 0] > 150 > pixels[2, 2, 2]
    assert (pixels[20:, 20:] == (10, 20, 200)).all()


def test_overlay_is_the_picture_where_all_places_say_the_same() -> None:
    seen = Image.new("RGB", (32, 32), (10, 20, 200))
    explanation = Explanation("a", 0, np.full((4, 4), -1.0, np.float32), seen)
    assert np.array_equal(np.asarray(overlay(explanation)), np.asarray(seen))
