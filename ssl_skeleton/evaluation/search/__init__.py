"""Embeddings on disk, and the index that finds the clips nearest to a recording."""
