"""How good a picture, a curve or a set of samples is."""
