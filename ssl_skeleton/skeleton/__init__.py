"""The body: joints, bones, mirror pairs, and the graph they form."""
