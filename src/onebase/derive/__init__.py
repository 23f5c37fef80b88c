"""Bases made from bases: merged, combined, quantised, students, and copies for other programs."""
