"""Pictures as the latents of a borrowed autoencoder, which a trunk of its own clears of noise, given a class and a time."""
