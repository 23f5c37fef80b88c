"""Derives bases from bases: merged, combined, quantized, students, and exports for other programs."""
