"""A beam step's attention and its cache writes on CUDA, in Triton; imported only where they run, so that nobody else needs Triton."""
