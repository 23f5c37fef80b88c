"""The demo: real data that pip alone brings, three tasks on it, and the run that shows the whole life of a base."""
