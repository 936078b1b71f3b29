"""Converters between MLX, GGUF and the Hugging Face format, and the PyTorch side of the evaluation."""
