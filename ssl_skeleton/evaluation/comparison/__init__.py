"""Results of many runs side by side: what may be compared, what differs, and whether by chance."""
