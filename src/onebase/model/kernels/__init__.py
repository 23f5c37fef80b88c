"""Kernels: attention backends, products with packed or low-bit matrices, compiled loops, and the fast decode path. The model calls
`attention`, `packed` and `decode`, which select the kernel."""
