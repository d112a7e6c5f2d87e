"""Pictures, drawn by matplotlib without a screen."""
