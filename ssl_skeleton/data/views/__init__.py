"""Views: batched functions from stored clips to what an encoder sees."""
