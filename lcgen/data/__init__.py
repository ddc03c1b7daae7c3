"""Images: sources, value ranges, test sets, corruptions, TFDS builders."""
