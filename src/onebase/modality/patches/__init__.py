"""Pictures and sound as patches of numbers in a trunk that they share with text: read, and made by flow matching."""
