"""What a store holds, and what is wrong in it."""
