"""Loading and saving Hugging Face models; the built-in tiny ones."""
