"""The ways in which a model computes the same: how far they lie apart is the noise of computing it."""

from __future__ import annotations

PLAIN = "eager"
"""All sequences together, with the library's own attention of single steps."""

SDPA = "sdpa"
"""With torch's scaled_dot_product_attention."""

ALONE = "alone"
"""Each sequence by itself, so that products are cut up otherwise."""

WAYS = (PLAIN, SDPA, ALONE)
