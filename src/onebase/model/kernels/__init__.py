"""What computes: attention backends, products with packed or few-bit matrices, compiled loops, and the fast decode path. The model asks
`attention`, `packed` and `decode`; these choose."""
