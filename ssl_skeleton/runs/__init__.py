"""What is done with a run: train its recipe in a folder of its own, load its encoders, score them."""
