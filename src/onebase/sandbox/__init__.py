"""What others wrote, run where it can do no harm: programs (`programs`, kept in by `jail`) and regular expressions (`matching`)."""
