"""Images: pixels to patches, patches to vectors; one vector, or class scores, per image."""
