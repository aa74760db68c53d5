"""One run in several processes, maybe on several hosts: rank 0 plans and ends it, and all ranks do shares of its tasks.

    place = place_of(os.environ)      # as torchrun, or another launcher, has set it
    if place.rank:
        serve(place, leave, signalled)
    lead = join(place)
    with lead.in_force():
        mcore2hf(source, target)
    lead.end(0)

The command line does this where the environment speaks of several processes. Conversions that are called from Python
never do by themselves: a training job's environment speaks of its own processes.
"""

from __future__ import annotations

from .forks import allowed
from .lead import Lead, join
from .place import Place, place_of
from .serving import serve

__all__ = ["Lead", "Place", "allowed", "join", "place_of", "serve"]
