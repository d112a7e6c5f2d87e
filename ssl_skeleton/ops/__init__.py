"""Operations on features of a graph over time: each a reference in torch and a kernel for the GPU."""
