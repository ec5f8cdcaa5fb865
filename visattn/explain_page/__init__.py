"""A page in which a Vision Transformer itself runs: its builder, and its scripts and styles."""
