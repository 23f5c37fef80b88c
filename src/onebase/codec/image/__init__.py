"""Images: pixels to patches, patches to vectors, and one vector or classes of an image."""
