"""The Lagrangian proposal found in two ways: projected gradient ascent on its duals, and the exact dual updates."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import numpy as np
from segprior import losses

from . import model
from .shapes import OBJECT
from .training import METHODS, Settings, make_data, object_bounds, train

METHOD = next(m for m in METHODS if m.bounds == "common" and m.proposal)
REPEATS = 3  # of each call; the median is kept


@dataclasses.dataclass
class Comparison:
    """One way on the training images of one seed, with bounds of the kind of METHOD."""

    logits: str  # whose they are, and of which images
    way: str
    steps: float  # mean over the images
    most_steps: int
    violation: float  # pixels by which a size is still outside its bounds, the worst image's
    seconds: float  # of one call for all images, median
    difference: float  # max |Q - Q'|, Q' of the exact way
    differing: float  # share of pixels whose likelier class differs from Q'


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("exact", {"method": "exact"}),
    ("gradient", {"method": "gradient"}),
    ("gradient, 20000 steps allowed", {"method": "gradient", "max_iters": 20000}),
]


def compare(settings: Settings) -> list[Comparison]:
    """Logits before and after training; images with the object and without it apart, since a size that must be 0 is
    approached by steps but never reached."""
    data, _ = make_data(settings)
    lower, upper = object_bounds(data.truth, METHOD.bounds or "")
    present = upper[:, OBJECT] > 0
    given = model.features(data.images)
    given = model.Scaling(given)(given)
    found = []
    for state, epochs in (("untrained", 0), ("trained", settings.epochs)):
        network = train(METHOD, dataclasses.replace(settings, epochs=epochs), data, given)
        logits = network.forward(given, data.images.shape[1:])
        for title, images in (("object there", present), ("not there", ~present)):
            name = f"{state}, {title}"
            found += _compare(name, logits[images], lower[images], upper[images])
    return found


def _compare(name: str, logits: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> list[Comparison]:
    exact = losses.lagrangian_proposal(logits, lower, upper, method="exact").proposal
    found = []
    for way, options in WAYS:
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            result = losses.lagrangian_proposal(logits, lower, upper, **options)
            times.append(time.perf_counter() - began)
        steps = np.asarray(result.info.iterations)
        volume = result.proposal.sum((2, 3), dtype=np.float64)
        found.append(
            Comparison(
                logits=name,
                way=way,
                steps=float(steps.mean()),
                most_steps=int(steps.max()),
                violation=float(np.maximum(np.maximum(lower - volume, volume - upper), 0).max()),
                seconds=statistics.median(times),
                difference=float(abs(result.proposal - exact).max()),
                differing=float((result.proposal.argmax(1) != exact.argmax(1)).mean()),
            )
        )
    return found
