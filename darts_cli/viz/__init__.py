"""Pictures of genotypes and of runs."""
