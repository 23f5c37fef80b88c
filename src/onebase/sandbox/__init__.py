"""Runs untrusted input safely: programs (`programs`, isolated by `jail`) and regular expressions (`matching`)."""
