"""Which rows of a stream stand in which step, where the stream has an end: every row stands in one, and the last step may be shorter."""


def steps_of(total: int, per_step: int, least: int = 1) -> int:
    """Steps that hold `total` rows. A rest of fewer than `least` rows is no step of its own where there is one before it."""
    whole, rest = divmod(total, per_step)
    return whole + (rest > 0 and (rest >= least or not whole))


def span(step: int, per_step: int, total: int | None, least: int = 1) -> range:
    """Numbers of the rows of a step; none behind the end. total: None for a stream without one."""
    first = step * per_step
    if total is None:
        return range(first, first + per_step)
    steps = steps_of(total, per_step, least)
    return range(first, total if step == steps - 1 else first + per_step) if step < steps else range(0)
