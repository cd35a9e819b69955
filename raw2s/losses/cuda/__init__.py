"""Row passes of the fused heads on CUDA, in Triton; imported only where they run, so that nobody else needs Triton.

Kernels have many parameters: a kernel takes pointers and constants one by one.
"""
