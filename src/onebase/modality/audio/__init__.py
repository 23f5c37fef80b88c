"""Audio: samples to log-mel frames, frames to vectors."""
