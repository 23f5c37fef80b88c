"""What lies on the Hugging Face Hub, by name: bases, adapters and data sets."""
