"""Genotypes: what they are, how they are derived from alphas, their files, their differences."""
