"""Families, tasks, methods, objectives and scores that other packages bring: an entry point of the group `onebase`, whose module registers them when it is imported.

[project.entry-points.onebase]
rank = "my_package.rank"
"""

import logging

log = logging.getLogger(__name__)
GROUP = "onebase"


def load() -> None:
    """Import what other packages bring. One that fails is named and left out: it takes nothing else with it."""
    from importlib.metadata import entry_points  # a tenth of a second, which help and records need not wait

    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as e:  # another's code: whatever it raises, ours goes on
            log.warning(
                "the plug-in %s (%s) is left out: %s: %s", point.name, point.value, type(e).__name__, e
            )
