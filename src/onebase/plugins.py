"""Loads plug-ins: an entry point of the group `onebase` names a module that registers families, tasks, methods, objectives,
modalities or scores.

[project.entry-points.onebase]
rank = "my_package.rank"
"""

import logging

log = logging.getLogger(__name__)
GROUP = "onebase"


def load() -> None:
    """Import all plug-ins. One that fails is logged and skipped; the others still load."""
    from importlib.metadata import entry_points  # a tenth of a second, which help and records do not need

    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as e:  # third-party code may raise anything
            log.warning(
                "the plug-in %s (%s) is skipped: %s: %s", point.name, point.value, type(e).__name__, e
            )
