"""The demo: real data from pip packages, three tasks on it, and a run that shows the whole life cycle of a base."""
